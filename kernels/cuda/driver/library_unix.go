//go:build unix

package driver

import (
	"fmt"

	"github.com/ebitengine/purego"
)

// library loads a shared library and finds its entry points.
func library(path string, names []string) (map[string]uintptr, error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, ErrNoDriver
	}
	entry := map[string]uintptr{}
	for _, name := range names {
		if entry[name], err = purego.Dlsym(lib, name); err != nil {
			return nil, fmt.Errorf("the CUDA driver is too old: it has no %s; update the NVIDIA driver (CUDA 12.4 or later)", name)
		}
	}
	return entry, nil
}
