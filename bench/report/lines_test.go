package report

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
)

// Every curve that has a point is drawn, and the page is well-formed and asks for nothing elsewhere.
func TestLines(t *testing.T) {
	long := Curve{Name: "long"}
	for i := range 5000 {
		long.X, long.Y = append(long.X, float64(i)), append(long.Y, math.Sin(float64(i)/100))
	}
	for name, c := range map[string]struct {
		curves []Curve
		lines  int
	}{
		"none":     {nil, 0},
		"one":      {[]Curve{{"a", []float64{1}, []float64{2}}}, 1},
		"constant": {[]Curve{{"a", []float64{1, 2}, []float64{0, 0}}}, 1},
		"gaps":     {[]Curve{{"a", []float64{1, 2, 3}, []float64{math.NaN(), math.Inf(1), 1}}, {"b", []float64{1}, []float64{math.NaN()}}}, 1},
		"two":      {[]Curve{long, {"b", []float64{1, 2}, []float64{3, 4}}}, 2},
	} {
		var b bytes.Buffer
		err := Write(&b, &Page{Title: "t", Sections: []Section{{Heading: "<h>", Lines: &Lines{X: "step", Y: "loss", Curves: c.curves}}}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text := b.String()
		svg := text[strings.Index(text, "<svg"):]
		svg = svg[:strings.Index(svg, "</svg>")+6]
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		n := 0
		for _, col := range []string{"#1F77B4", "#D62728"} {
			if strings.Contains(svg, "stroke:"+col) || strings.Contains(svg, "fill:"+col) {
				n++
			}
		}
		if n != c.lines {
			t.Errorf("%s: %d curves drawn, want %d: %.2000s", name, n, c.lines, svg)
		}
		if strings.Contains(text, "src=") || strings.Contains(text, "<h>") || len(text) > 200_000 {
			t.Errorf("%s: page of %d bytes", name, len(text))
		}
	}
}

// Means of stretches keep the mean.
func TestManyPoints(t *testing.T) {
	c := Curve{}
	for i := range 6000 {
		c.X, c.Y = append(c.X, float64(i)), append(c.Y, float64(i%7))
	}
	got, want, n := 0.0, 0.0, 0
	for _, q := range c.points() {
		got += q.Y
		n++
	}
	for _, y := range c.Y {
		want += y
	}
	if n > mostPoints || math.Abs(got/float64(n)-want/6000) > 1e-9 {
		t.Errorf("%d points, mean %v, want %v", n, got/float64(n), want/6000)
	}
}
