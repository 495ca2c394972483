// Command r2 runs, trains and serves language models that route reasoning: it completes and scores
// text, fine-tunes LoRA adapters by SFT and GRPO, and answers questions by splitting them into
// subtasks for the cheapest model of a pool that can solve each.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes, the same for every command.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

var cli struct {
	Demo     demoCmd     `cmd:"" help:"Answer held-out questions with the shipped miniature, then show one GRPO update."`
	Generate generateCmd `cmd:"" help:"Complete prompts or conversations."`
	Logprobs logprobsCmd `cmd:"" help:"Score text: the log-probability of every token, and a confidence."`
	Tokenize tokenizeCmd `cmd:"" help:"Turn lines of text into token ids, or back."`
	Inspect  inspectCmd  `cmd:"" help:"Show what is in a model, adapter, checkpoint or run."`
	Serve    serveCmd    `cmd:"" help:"Serve models, adapters and the router over HTTP."`
	Route    routeCmd    `cmd:"" help:"Answer questions with the router of a configuration."`
	SFT      sftCmd      `cmd:"" name:"sft" help:"Fine-tune a LoRA adapter, or all weights, on examples."`
	GRPO     grpoCmd     `cmd:"" name:"grpo" help:"Train a LoRA adapter by group relative policy optimization."`
	Merge    mergeCmd    `cmd:"" help:"Add a LoRA adapter to its base and write the merged model."`
	Bench    benchCmds   `cmd:"" help:"Measure this machine's roof and what share of it is reached, or a service under load."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // whoever tells it twice does not want to wait
	os.Exit(run(ctx, os.Args[1:]))
}

// run is the program: it parses args, runs the command and gives the exit code.
func run(ctx context.Context, args []string) int {
	parser, err := kong.New(&cli,
		kong.Name("r2"),
		kong.Description("R2 routes reasoning over many language models. Start with: r2 demo"),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		panic(err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "r2: %v\n", err)
		var pe *kong.ParseError
		if errors.As(err, &pe) && pe.Context != nil && pe.Context.Command() != "" {
			fmt.Fprintf(os.Stderr, "see: r2 %s --help\n", strings.Fields(pe.Context.Command())[0])
		} else {
			fmt.Fprintln(os.Stderr, "see: r2 --help")
		}
		return exitUsage
	}
	err = k.Run()
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "r2: interrupted")
		return exitInterrupted
	}
	fmt.Fprintf(os.Stderr, "r2: %s: %s\n", strings.Fields(k.Command())[0], oneLine(err))
	var u usageError
	if errors.As(err, &u) {
		return exitUsage
	}
	return exitFailed
}

// A usageError is a wrong use that only the command itself could see.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
