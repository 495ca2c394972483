// Package r2_test checks the layout of the module: who may import whom, and that each package says what
// it is.
package r2_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/r2-reasoner/r2/"

// may lists, for each package, the packages of this module it may import; its tests may import any.
// A name that ends in /... stands for itself and everything below it.
var may = map[string]string{
	"kernels":                        "",
	"kernels/cpu":                    "kernels",
	"kernels/cpu/gen":                "", // writes the assembly of kernels/cpu
	"kernels/cpu/vecgen":             "",
	"kernels/cpu/narrowgen":          "",
	"kernels/cuda":                   "kernels kernels/cuda/...",
	"kernels/cuda/driver":            "",
	"kernels/cuda/driver/gorgonia":   "kernels/cuda/driver", // the second binding, behind the tag nvgpu
	"kernels/cuda/driver/drivertest": "kernels/cuda/driver",
	"kernels/cuda/probe":             "kernels/cuda/driver kernels/cuda/ptx",
	"kernels/cuda/ptx":               "",                 // kernels as text
	"kernels/cuda/ptx/gen":           "kernels/cuda/ptx", // compiles them
	"kernels/cuda/ptxsim":            "kernels/cuda/driver",
	"kernels/kerneltest":             "kernels kernels/ref",
	"kernels/ref":                    "kernels",
	"kernels/trace":                  "kernels",
	"weights":                        "",
	"tokenizer":                      "tokenizer/jinja",
	"tokenizer/jinja":                "", // chat templates; gonja does not keep Python's rules and cannot be stopped
	"model":                          "kernels model/batch weights",
	"model/batch":                    "",
	"model/modeltest":                "kernels model weights",
	"engine":                         "engine/kvcache engine/sample model/batch",
	"engine/grammar":                 "",
	"engine/kvcache":                 "",
	"engine/runner":                  "engine engine/sample kernels model model/batch weights",           // weights: adapters come while it runs
	"engine/serve":                   "engine engine/sample router router/local router/openai tokenizer", // calls of HTTP on an engine
	"engine/sample":                  "",
	"train":                          "kernels model model/batch weights",
	"train/grpo":                     "model/batch",
	"train/events":                   "",
	"train/journal":                  "",
	"train/reward":                   "",
	"train/rollout":                  "engine engine/sample train/grpo",
	"train/routing":                  "router/... train train/grpo train/sft train/tasks",
	"train/sft":                      "model/batch",
	"train/tasks":                    "",
	"router":                         "",
	"router/allocate":                "router",
	"router/decompose":               "router",
	"router/local":                   "router engine engine/grammar engine/sample tokenizer", // a request's Params are sample's
	"router/openai":                  "router",
	"router/pool":                    "router",
	"router/replay":                  "router",
	"cmd/r2":                         "...",
	"bench":                          "...",
	"bench/gpu":                      "...",
	"bench/miniature":                "...",
	"bench/predict":                  "...", // a model on a recorder, its operations on a simulator
	"bench/report":                   "",
}

// only lists what few packages may import from outside the module.
var only = map[string]string{
	"database/sql": "router/replay train/journal",
	"log":          "cmd/r2 bench/... kernels/cpu/gen kernels/cpu/vecgen",
	"log/slog":     "cmd/r2 bench/...",
	"net/http":     "router/openai train/reward cmd/r2 bench/...", // train/reward: a judge may be a server
	"unsafe":       "kernels/cpu kernels/cuda/driver/... kernels/cuda/ptx/gen bench/gpu weights",
}

// prints lists who may print: libraries return values and errors.
const prints = "cmd/r2 bench/... kernels/cpu/gen kernels/cpu/vecgen kernels/cuda/ptx/gen"

func TestLayout(t *testing.T) {
	documented := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && file != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata"):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(file))
		documented[pkg] = documented[pkg] || f.Doc != nil
		imports(t, pkg, file, f)
		if !match(pkg, prints) {
			silent(t, file, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg, ok := range documented {
		if _, known := may[pkg]; !known {
			t.Errorf("%s is not in the layout: say in layout_test.go what it may import", pkg)
		}
		if !ok {
			t.Errorf("%s has no package comment", pkg)
		}
	}
	for pkg := range may {
		if _, err := os.Stat(filepath.FromSlash(pkg)); err != nil {
			t.Logf("%s is in the layout and not there yet", pkg)
		}
	}
}

func imports(t *testing.T, pkg, file string, f *ast.File) {
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if in, ours := strings.CutPrefix(imp, module); ours && !match(in, may[pkg]) {
			t.Errorf("%s imports %s; %s may import: %s", file, in, pkg, may[pkg])
		}
		if who, few := only[imp]; few && !match(pkg, who) {
			t.Errorf("%s imports %s; only these may: %s", file, imp, who)
		}
	}
}

// silent reports calls of fmt.Print, Printf and Println.
func silent(t *testing.T, file string, f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && x.Name == "fmt" && strings.HasPrefix(s.Sel.Name, "Print") {
			t.Errorf("%s calls fmt.%s; only these print: %s", file, s.Sel.Name, prints)
		}
		return true
	})
}

// match reports whether name is in list.
func match(name, list string) bool {
	for _, want := range strings.Fields(list) {
		dir, below := strings.CutSuffix(want, "...")
		if below && strings.HasPrefix(name+"/", dir) || name == want {
			return true
		}
	}
	return false
}
