package cuda

// A function is a kernel that a machine has loaded, a recording a graph that it holds.
type (
	function  uintptr
	recording uintptr
)

// A machine runs kernels on one stream, in order: a GPU through its driver, or a simulator of one. All but
// Launch, Upload, Download, Clear and Replay are done when they return; Sync waits for those.
type machine interface {
	Name() string
	// Bind makes the calling thread one that may use the machine.
	Bind() error
	Close()
	// MostShared is the shared memory, in bytes, that a block can be allowed.
	MostShared() int

	// Load takes a module's PTX and returns its kernels by name.
	Load(text string, names []string) ([]function, error)
	// Allow lets a kernel have so much dynamic shared memory, beyond 48 KB.
	Allow(f function, bytes int) error
	// Launch starts a kernel with its arguments, each in the low bytes of a slot.
	Launch(f function, g grid, threads, shared int, args []uint64) error
	Sync() error

	Alloc(bytes int) (uint64, error)
	Free(at uint64) error
	MemInfo() (free, total int, err error)
	Pinned(bytes int) ([]byte, error)
	// Upload and Download copy from and to pinned memory.
	Upload(to uint64, from []byte) error
	Download(to []byte, from uint64) error
	Clear(at uint64, bytes int) error

	// Begin records launches, and does not run them, until End.
	Begin() error
	End() (recording, error)
	Replay(r recording) error
	Forget(r recording) error
}
