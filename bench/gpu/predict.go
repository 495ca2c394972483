package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/r2-reasoner/r2/bench/predict"
)

// predicted counts the kernels at the sizes of a 7B model, and writes what follows of it.
func predicted(_ options, args []string) error {
	dir, err := only(args, "the folder bench")
	if err != nil {
		return err
	}
	var done []predict.Prediction
	var failed error
	_, err = predict.All(predict.Qwen7B().Config, predict.H100, func(p predict.Prediction) {
		fmt.Printf("%-32s %-4s %10.3f ms\n", p.Case, p.Acts, 1e3*p.Seconds)
		done = append(done, p)
		failed = errors.Join(failed, keep(dir, done))
	})
	return errors.Join(err, failed)
}

// keep writes predictions as numbers and as a page.
func keep(dir string, all []predict.Prediction) error {
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "predict", "predicted.json"), append(b, '\n'), 0o666); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "predicted.md"), []byte(predict.Text(predict.Qwen7B(), predict.H100, all)), 0o666)
}
