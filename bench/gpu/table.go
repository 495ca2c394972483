package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/r2-reasoner/r2/bench"
)

// table shows results and keeps them as one file.
func table(_ options, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want two arguments: the file of results, and the one to write")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	var rows []bench.Row
	in := bufio.NewScanner(f)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var r bench.Row
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return fmt.Errorf("%s: %q is not a result: %w", args[0], in.Text(), err)
		}
		rows = append(rows, r)
	}
	if err := in.Err(); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "bench\tcase\tdtype\treached\tunit\tbound\tshare")
	for _, r := range rows {
		bound, share := "-", "-"
		if r.Bound > 0 {
			bound, share = fmt.Sprintf("%.4g", r.Bound), fmt.Sprintf("%.0f %%", 100*r.Share)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.4g\t%s\t%s\t%s\n", r.Bench, r.Case, r.DType, r.Reached, r.Unit, bound, share)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(rows, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(args[1], b, 0o666)
}
