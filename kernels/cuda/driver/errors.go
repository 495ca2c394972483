package driver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNoDriver says that there is no CUDA driver on this machine.
var ErrNoDriver = errors.New("no CUDA driver: libcuda.so.1 was not found (it comes with the NVIDIA driver)")

// An Error is a call of the driver that failed.
type Error struct {
	Call string // the entry point, without its version
	Code int    // the CUresult
	Name string // its name, such as CUDA_ERROR_OUT_OF_MEMORY
	Text string // the driver's sentence
}

// Results that something is decided by, or to be done about.
const (
	codeMemory       = 2
	codeUnavailable  = 46
	codeNoDevice     = 100
	codePTX          = 222
	codeUnknown      = 999
	codeInsufficient = 803
)

// lost are the results after which a context is of no more use: memory or a link that failed, illegal
// addresses, instructions and barriers, timeouts, assertions, a launch that failed.
var lost = []int{214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, codeUnknown}

var remedies = map[int]string{
	codeUnavailable:  "another process has the GPU to itself, or its compute mode forbids this one",
	codeNoDevice:     "no GPU is seen: is there one, and does CUDA_VISIBLE_DEVICES hide it?",
	codePTX:          "the driver is older than the kernels: update the NVIDIA driver",
	codeInsufficient: "the driver's parts are of different versions: restart the machine or reinstall the NVIDIA driver",
	codeUnknown:      "the driver does not know why: the system's log may (Xid messages in dmesg)",
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s (%s)", e.Call, e.Text, e.Name)
	if r := remedies[e.Code]; r != "" {
		s += ": " + r
	}
	return s
}

// OutOfMemory reports whether err is of a device without the memory asked for.
func OutOfMemory(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == codeMemory
}

// Fatal reports whether err is of a device that is lost to this process: a kernel of it faulted, or the
// hardware did. A new process can use it again.
func Fatal(err error) bool {
	var e *Error
	return errors.As(err, &e) && slices.Contains(lost, e.Code)
}

// entryName is a call's name as the documentation has it.
func entryName(symbol string) string {
	for _, version := range []string{"_v2", "_v3"} {
		symbol = strings.TrimSuffix(symbol, version)
	}
	return symbol
}
