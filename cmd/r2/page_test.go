package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cdp "github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// browse opens a tab of a real browser.
func browse(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no browser: install chromium (Debian) to test the page")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as this context
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// shot keeps a picture of the page in the folder R2_SCREENSHOTS, where that is set.
func shot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("R2_SCREENSHOTS")
	if dir == "" {
		return
	}
	png := act(t, ctx, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// act gives an action's value.
func act[T any](t *testing.T, ctx context.Context, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		said, _ := chromedp.Run(ctx, chromedp.Evaluate[[]string]("said"))
		t.Fatalf("%v (the page said %q)", err, said)
	}
	return v
}

// do runs actions one after the other.
func do(t *testing.T, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	for _, a := range actions {
		act(t, ctx, a)
	}
}

// listen has the page keep what goes wrong on it: errors nobody caught, and breaches of its own policy of content.
const listen = `said = []; addEventListener("error", e => said.push(e.message)); ` +
	`addEventListener("unhandledrejection", e => said.push(String(e.reason))); ` +
	`addEventListener("securitypolicyviolation", e => said.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample));`

// In a real browser: a question becomes a chain with its models, its bill and the comparison; a chat streams;
// the tabs go by keyboard; nothing is wider than a phone; and nothing goes wrong on the page.
func TestPage(t *testing.T) {
	url := start(t, "--config", filepath.Join("miniature", "r2.yaml"), "--model", shipped("maxi"))
	ctx := browse(t)
	do(t, ctx, func(ctx context.Context, to *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, to, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: listen})
		return chromedp.Void{}, err
	})
	css := func(s string) chromedp.CSS { return chromedp.CSS(s) }
	count := func(of string) int {
		t.Helper()
		return act(t, ctx, chromedp.Evaluate[int](`document.querySelectorAll("`+of+`").length`))
	}

	do(t, ctx, chromedp.EmulateViewport(390, 800), chromedp.Navigate(strings.TrimSuffix(url, "/v1")+"/"), chromedp.WaitEnabled(css("#askGo")),
		chromedp.SendKeys(css("#question"), "jump twice and walk left"),
		chromedp.KeyEvent(kb.Enter, chromedp.KeyModifiers(kb.ModifierCtrl)), chromedp.WaitVisible(css("#bill")))
	steps := count("#chain li.done")
	if badges, bars := count("#chain .badge"), count("#chain .bar"); steps < 2 || badges != steps || bars != steps {
		t.Errorf("%d steps done, %d models, %d confidences", steps, badges, bars)
	}
	if got, want := act(t, ctx, chromedp.Text(css("#answer"))), "I_JUMP I_JUMP I_TURN_LEFT I_WALK"; strings.TrimSpace(got) != want {
		t.Errorf("the answer is %q, want %q", got, want)
	}
	if got := act(t, ctx, chromedp.Text(css("#against"))); !strings.Contains(got, "maxi") {
		t.Errorf("no comparison with the largest model: %q", got)
	}
	if wide := act(t, ctx, chromedp.Evaluate[int]("document.documentElement.scrollWidth - innerWidth")); wide > 0 {
		t.Errorf("the page is %d pixels wider than a phone", wide)
	}
	if hidden := act(t, ctx, chromedp.Evaluate[int](`(e => e.scrollWidth - e.clientWidth)(document.getElementById("bill"))`)); hidden > 0 {
		t.Errorf("%d pixels of the bill cannot be seen on a phone", hidden)
	}
	shot(t, ctx, "ask-phone-light")

	do(t, ctx, chromedp.Focus(css("#tab-ask")), chromedp.KeyEvent(kb.ArrowRight), chromedp.WaitVisible(css("#say")))
	if got := act(t, ctx, chromedp.Evaluate[string]("document.activeElement.id")); got != "tab-chat" {
		t.Errorf("the arrow went to %q", got)
	}
	do(t, ctx, chromedp.SetValue(css("#model"), "maxi"), chromedp.SendKeys(css("#say"), "walk twice"), chromedp.Click(css("#sayGo")),
		chromedp.Poll[chromedp.Void](`document.getElementById("took").textContent !== ""`))
	if got := act(t, ctx, chromedp.Text(css(".turn.assistant"))); !strings.Contains(got, "WALK") {
		t.Errorf("maxi says %q to \"walk twice\"", got)
	}
	shot(t, ctx, "chat-phone")

	do(t, ctx, chromedp.EmulateViewport(1000, 700), dark, chromedp.Click(css("#tab-metrics")),
		chromedp.Poll[chromedp.Void](`!document.getElementById("noMetrics").hidden || document.querySelectorAll("#gauges tr").length > 5`))
	shot(t, ctx, "metrics-dark")
	do(t, ctx, chromedp.Click(css("#tab-ask")))
	shot(t, ctx, "ask-dark")
	for _, text := range act(t, ctx, chromedp.Evaluate[[]string]("said")) {
		t.Errorf("the page complained: %s", text)
	}
}

// dark asks for dark colours.
func dark(ctx context.Context, to *chromedp.Target) (chromedp.Void, error) {
	_, err := cdp.Call(ctx, to, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	return chromedp.Void{}, err
}
