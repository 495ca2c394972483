package kerneltest_test

import (
	"testing"

	"github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/kerneltest"
	"github.com/r2-reasoner/r2/kernels/ref"
)

func open(*testing.T) kernels.Backend { return ref.New() }

func TestRef(t *testing.T)  { kerneltest.Run(t, open) }
func TestSame(t *testing.T) { kerneltest.Same(t, open, open) }
