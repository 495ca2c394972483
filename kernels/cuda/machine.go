package cuda

type function any
type recording any

type machine interface {
	Name() string
	Bind() error
	Close()
	MostShared() int
	Load(text string, names []string) ([]function, error)
	Alloc(n int) (uint64, error)
	Free(at uint64) error
	MemInfo() (int, int, error)
	Clear(at uint64, n int) error
	Pinned(n int) ([]byte, error)
	Upload(at uint64, b []byte) error
	Download(b []byte, at uint64) error
	Sync() error
	Allow(f function, n int) error
	Launch(f function, g grid, threads, shared int, args []uint64) error
	Begin() error
	End() (recording, error)
	Replay(recording) error
	Forget(recording) error
}
