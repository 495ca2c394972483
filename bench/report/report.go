// Package report writes what a run found as one HTML page that needs no network: text, tables, plots
// and chains of subtasks.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// A Page is what is shown, from top to bottom.
type Page struct {
	Title    string
	Intro    string // one paragraph
	Sections []Section
}

// A Section is a heading and what stands below it; what is empty is left out.
type Section struct {
	Heading string
	Text    string
	Table   *Table
	Plot    *Scatter
	Lines   *Lines
	Chains  []Chain
}

// A Table has a head and rows of as many cells.
type Table struct {
	Head []string
	Rows [][]string
}

// A Scatter is named points.
type Scatter struct {
	X, Y   string // what the axes are, with units
	Points []Point
}

// A Point is one named mark.
type Point struct {
	Name string
	X, Y float64
}

// A Chain is a question, the subtasks it was split into, and its answer.
type Chain struct {
	Question, Answer, Verdict string
	Links                     []Link
}

// A Link is a subtask, the model that got it, and what it answered.
type Link struct{ Subtask, Model, Answer string }

//go:embed page.html
var pageHTML string

var page = template.Must(template.New("page").Funcs(template.FuncMap{"svg": svg, "lines": lines}).Parse(pageHTML))

// Write writes the page.
func Write(w io.Writer, p *Page) error { return page.Execute(w, p) }

// svg draws a scatter plot.
func svg(s *Scatter) (template.HTML, error) {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = s.X, s.Y
	p.Y.Min, p.Y.Max = 0, 1
	xs := make(plotter.XYs, len(s.Points))
	names := make([]string, len(s.Points))
	for i, q := range s.Points {
		xs[i].X, xs[i].Y, names[i] = q.X, q.Y, " "+q.Name
	}
	dots, err := plotter.NewScatter(xs)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	labels, err := plotter.NewLabels(plotter.XYLabels{XYs: xs, Labels: names})
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	p.Add(plotter.NewGrid(), dots, labels)
	p.X.Min = 0
	p.X.Max *= 1.2 // room for the rightmost name
	return render(p, 6*vg.Inch, 3.5*vg.Inch)
}
