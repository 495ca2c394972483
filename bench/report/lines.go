package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Lines are curves over one axis. What is not finite is left out.
type Lines struct {
	X, Y   string // what the axes are, with units
	Curves []Curve
}

// A Curve is a named sequence of points, X ascending.
type Curve struct {
	Name string
	X, Y []float64
}

// mostPoints of a curve are drawn; of more, the mean of each stretch, so that a page stays small.
const mostPoints = 600

var curveColors = []color.Color{
	color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 255}, color.RGBA{R: 0xd6, G: 0x27, B: 0x28, A: 255},
	color.RGBA{R: 0x2c, G: 0xa0, B: 0x2c, A: 255}, color.RGBA{R: 0x94, G: 0x67, B: 0xbd, A: 255},
}

// lines draws curves.
func lines(s *Lines) (template.HTML, error) {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = s.X, s.Y
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	for i, c := range s.Curves {
		xy := c.points()
		if len(xy) == 0 {
			continue
		}
		line, err := plotter.NewLine(xy)
		if err != nil {
			return "", fmt.Errorf("report: %w", err)
		}
		line.Color, line.Width = curveColors[i%len(curveColors)], vg.Points(1.5)
		p.Add(line)
		if len(xy) < 40 {
			dots, err := plotter.NewScatter(xy)
			if err != nil {
				return "", fmt.Errorf("report: %w", err)
			}
			dots.Color, dots.Radius, dots.Shape = line.Color, vg.Points(2), draw.CircleGlyph{}
			p.Add(dots)
		}
		if len(s.Curves) > 1 {
			p.Legend.Add(c.Name, line)
		}
	}
	widen(&p.X)
	widen(&p.Y)
	return render(p, 8.4*vg.Inch, 2.6*vg.Inch)
}

// widen gives an axis without extent one, so that a constant is a line across the middle.
func widen(a *plot.Axis) {
	switch {
	case a.Min > a.Max:
		a.Min, a.Max = 0, 1
	case a.Min == a.Max:
		d := math.Abs(a.Min) / 2
		if d == 0 {
			d = 0.5
		}
		a.Min, a.Max = a.Min-d, a.Max+d
	}
}

// points are the curve's finite points, or means of stretches of them.
func (c *Curve) points() plotter.XYs {
	var all plotter.XYs
	for i, y := range c.Y {
		if x := c.X[i]; y-y == 0 && x-x == 0 {
			all = append(all, plotter.XY{X: x, Y: y})
		}
	}
	n := (len(all) + mostPoints - 1) / mostPoints
	if n <= 1 {
		return all
	}
	var out plotter.XYs
	for at := 0; at < len(all); at += n {
		var sum plotter.XY
		part := all[at:min(at+n, len(all))]
		for _, q := range part {
			sum.X, sum.Y = sum.X+q.X, sum.Y+q.Y
		}
		out = append(out, plotter.XY{X: sum.X / float64(len(part)), Y: sum.Y / float64(len(part))})
	}
	return out
}

// render is a plot as an SVG element.
func render(p *plot.Plot, w, h vg.Length) (template.HTML, error) {
	c, err := p.WriterTo(w, h, "svg")
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	text := b.String()
	if at := strings.Index(text, "<svg"); at >= 0 {
		text = text[at:]
	}
	return template.HTML(text), nil
}
