package train_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A checkpoint whose state is whole JSON but lists no files proves nothing of them: it is passed over too.
func TestStateWithoutFiles(t *testing.T) {
	for _, state := range []string{`{}`, `{"step":2,"sha256":{}}`, `{"step":2`, ``, `null`} {
		root := t.TempDir()
		l := learner(t, false)
		for range 2 {
			steps(t, l, 1, 256)
			if err := l.Save(root, 2); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "2", "state.json"), []byte(state), 0o666); err != nil {
			t.Fatal(err)
		}
		again := learner(t, false)
		passed, err := again.Resume(root)
		if err != nil || again.Step != 1 || len(passed) != 1 || !strings.Contains(passed[0].Error(), "state.json") {
			t.Errorf("state %q: step %d, passed over %v, %v", state, again.Step, passed, err)
		}
	}
}
