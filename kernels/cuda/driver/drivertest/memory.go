package drivertest

import "slices"

func memory(b *bench) {
	x, y := b.words(64, 0x5a), b.words(64, 0)
	b.want("set", x, same(0x5a5a5a5a, 64))
	from := []byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}
	b.ok(b.Upload(x+8, from))
	b.ok(b.Copy(y+4, x+4, 20))
	b.ok(b.Set(x, 1, 4))
	b.want("copied", y, append([]uint32{0, 0x5a5a5a5a, 1, 2, 3, 0x5a5a5a5a}, same(0, 58)...))
	b.want("set in part", x, append([]uint32{0x01010101, 0x5a5a5a5a, 1, 2, 3}, same(0x5a5a5a5a, 59)...))
	free, total, err := b.MemInfo()
	if err != nil || free < 0 || free > total || total == 0 {
		b.Errorf("%d of %d bytes are free (%v)", free, total, err)
	}
}

func ordered(b *bench) {
	for first := range 3 { // what was freed may come again, in order
		x, err := b.AllocAsync(400)
		b.ok(err)
		b.countUp(x, 100, first)
		y, err := b.AllocAsync(400)
		b.ok(err)
		b.ok(b.Copy(y, x, 400))
		b.ok(b.FreeAsync(x))
		b.want("counted", y, upFrom(first, 100))
		b.ok(b.FreeAsync(y))
	}
	b.ok(b.Sync())
}

func pinned(b *bench) {
	p, err := b.Pin(1 << 16)
	b.ok(err)
	for i := range p {
		p[i] = byte(i * 7)
	}
	want := slices.Clone(p)
	x := b.words(1<<14, 0)
	b.ok(b.Upload(x, p))
	b.ok(b.Sync())
	clear(p)
	b.ok(b.Download(p, x))
	b.ok(b.Sync())
	if !slices.Equal(p, want) {
		b.Error("what came back is not what went")
	}
	b.ok(b.Unpin(p))
}
