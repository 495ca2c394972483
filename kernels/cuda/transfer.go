package cuda

import (
	"encoding/binary"
	"fmt"

	k "github.com/r2-reasoner/r2/kernels"
	"github.com/r2-reasoner/r2/kernels/cuda/driver"
)

const (
	noFault      = 1<<64 - 1
	faultBytes   = 8
	stagingBytes = 8 << 20
	boxBytes     = 1 << 20 // of what is sent, or taken, at once
	mostPiece    = 64 << 10
	mostPieces   = 4096
	pieceBytes   = 16 // of the table that distribute reads
)

// A post is the way of small things to the device: what Write is given is gathered in pinned memory, goes up
// in one copy before the next launch, and a kernel takes the pieces to their places.
type post struct {
	staging []byte // pinned
	staged  int    // bytes of it that are under way, or wait to be sent
	from    int    // where what waits begins
	pieces  []piece
	inbox   uint64 // device memory of boxBytes
	outbox  uint64
	args    driver.Args
}

// A piece is bytes that wait to be sent.
type piece struct {
	to    uint64
	at, n int // in staging
}

func (d *Device) openPost() (err error) {
	if d.post.staging, err = d.gpu.Pin(stagingBytes); err != nil {
		return fmt.Errorf("no pinned memory: %w", err)
	}
	for _, box := range []*uint64{&d.post.inbox, &d.post.outbox} {
		if *box, err = d.gpu.Alloc(boxBytes); err != nil {
			return fmt.Errorf("no memory for what is sent and taken%s: %w", d.room(), err)
		}
	}
	d.post.pieces = make([]piece, 0, mostPieces)
	return nil
}

// put lets src, of at most mostPiece bytes, wait to be sent.
func (d *Device) put(to uint64, src []byte) {
	p := &d.post
	full := len(p.pieces) == cap(p.pieces) || p.staged-p.from+len(src)+pieceBytes*(len(p.pieces)+2) > boxBytes
	for i := range p.pieces {
		full = full || to < p.pieces[i].to+uint64(p.pieces[i].n) && p.pieces[i].to < to+uint64(len(src)) // pieces have no order
	}
	if full {
		d.send()
	}
	if len(p.pieces) == 0 {
		if len(p.staging)-p.staged < boxBytes {
			d.wait()
			p.staged = 0
		}
		p.from = p.staged
	}
	p.pieces = append(p.pieces, piece{to, p.staged, copy(p.staging[p.staged:], src)})
	p.staged = ceil(p.staged+len(src), 16) * 16
}

// send sends what waits.
func (d *Device) send() {
	p := &d.post
	pieces := p.pieces
	p.pieces = pieces[:0]
	switch {
	case len(pieces) == 0 || d.err != nil:
		return
	case len(pieces) == 1:
		one := pieces[0]
		d.check("Write", d.gpu.Upload(one.to, p.staging[one.at:one.at+one.n]))
		return
	}
	table := p.staged
	for _, one := range pieces {
		row := p.staging[p.staged:]
		binary.LittleEndian.PutUint64(row, one.to)
		binary.LittleEndian.PutUint32(row[8:], uint32(one.at-p.from)/4)
		binary.LittleEndian.PutUint32(row[12:], uint32(one.n)/4)
		p.staged += pieceBytes
	}
	d.check("Write", d.gpu.Upload(p.inbox, p.staging[p.from:p.staged]))
	p.args.Reset()
	p.args.Add(p.inbox, p.inbox+uint64(table-p.from))
	d.transfer(opWrite, "distribute", line(len(pieces)))
}

// transfer launches one of the two kernels of transfer.cu, with the arguments in post.args.
func (d *Device) transfer(op opcode, name string, g grid) {
	kn := d.kernels[name]
	d.post.args.Add(d.fault, uint64(d.tag(op)))
	now := launched{op: op, kernel: name, grid: g, threads: 128}
	d.remember(now)
	if err := d.launch(kn, g, alone.cluster(), 128, 0, &d.post.args); err != nil {
		d.fail(fmt.Errorf("cuda: %v: %w", now, err))
	}
}

// upload takes src to the device through pinned memory, a piece at a time, and now.
func (d *Device) upload(what string, to uint64, src []byte) {
	if d.recording && len(src) > 0 {
		d.fail(fmt.Errorf("cuda: %s: bytes from the host cannot be recorded in a graph", what))
	}
	d.send()
	p := &d.post
	for len(src) > 0 && d.err == nil {
		if p.staged == len(p.staging) { // all of it is under way
			d.wait()
			p.staged = 0
		}
		n := copy(p.staging[p.staged:], src)
		d.check(what, d.gpu.Upload(to, p.staging[p.staged:p.staged+n]))
		p.staged, to, src = min(ceil(p.staged+n, 16)*16, len(p.staging)), to+uint64(n), src[n:]
	}
}

func (d *Device) Write(dst k.Tensor, src []byte) {
	need(len(src) == 4*dst.Rows*dst.Cols, "Write", dst)
	switch {
	case d.err != nil || len(src) == 0:
	case dst.Stride != dst.Cols && dst.Rows > 1:
		raw := d.space(len(src))
		d.upload("Write", raw, src)
		d.op(opCopy, "copy").out(dst).address(raw).ints(dst.Cols, dst.Rows, dst.Cols).run(rowsAndColumns(dst.Rows, dst.Cols), 256)
	case len(src) <= mostPiece && !d.recording:
		d.put(d.at("Write", dst), src)
	default:
		d.upload("Write", d.at("Write", dst), src)
	}
}

func (d *Device) Read(dst []byte, src k.Tensor) error { return d.ReadBoth(dst, src, k.Tensor{}) }

// ReadBoth reads a, and then b unless it is zero, into dst: in one copy where they are small.
func (d *Device) ReadBoth(dst []byte, a, b k.Tensor) error {
	na, nb := a.Rows*a.Cols, b.Rows*b.Cols
	need(len(dst) == 4*(na+nb), "Read", a, b)
	lies := func(t k.Tensor) bool { return t.Rows <= 1 || t.Stride == t.Cols }
	switch {
	case d.err != nil || len(dst) == 0:
		return d.Sync()
	case len(dst) > boxBytes-faultBytes || !lies(a) || !lies(b):
		if err := d.readLarge(dst[:4*na], a); err != nil || nb == 0 {
			return err
		}
		return d.readLarge(dst[4*na:], b)
	}
	d.collect(a, b)
	if err := d.finish("Read", d.post.outbox, faultBytes+len(dst)); err != nil {
		return err
	}
	copy(dst, d.post.staging[faultBytes:])
	return nil
}

// collect brings the fault word and two tensors to the outbox.
func (d *Device) collect(a, b k.Tensor) {
	d.send()
	p := &d.post
	p.args.Reset()
	p.args.Add(p.outbox)
	n := 0
	for _, t := range [2]k.Tensor{a, b} {
		at, size := uint64(0), t.Rows*t.Cols
		if size > 0 {
			at = d.at("Read", t)
		}
		p.args.Add(at, uint64(size))
		n += size
	}
	if d.err == nil {
		d.transfer(opRead, "collect", line(ceil(n, 128)))
	}
}

// readLarge reads a tensor of any size or stride.
func (d *Device) readLarge(dst []byte, src k.Tensor) error {
	from := d.at("Read", src)
	if src.Stride != src.Cols && src.Rows > 1 {
		from = d.space(len(dst))
		d.op(opCopy, "copy").address(from).ints(src.Cols).in(src).ints(src.Rows, src.Cols).run(rowsAndColumns(src.Rows, src.Cols), 256)
	}
	d.send()
	for p := &d.post; d.err == nil && len(dst) > 0; {
		n := min(len(dst), len(p.staging)-faultBytes)
		d.check("Read", d.gpu.Download(p.staging[faultBytes:][:n], from))
		if err := d.Sync(); err != nil {
			return err
		}
		copy(dst, p.staging[faultBytes:][:n])
		dst, from = dst[n:], from+uint64(n)
	}
	return d.Sync()
}

// Sync waits, and reports and clears the first failure since the last Read or Sync.
func (d *Device) Sync() error {
	d.send()
	return d.finish("Sync", d.fault, faultBytes)
}

// finish takes n bytes, the fault word first, to the beginning of the pinned memory, waits, and reports and
// clears the first failure.
func (d *Device) finish(what string, from uint64, n int) error {
	p := &d.post
	p.staged = 0
	if d.err == nil {
		d.check(what, d.gpu.Download(p.staging[:n], from))
	}
	d.wait()
	err := d.err
	if d.err = d.lost; d.lost != nil {
		return d.lost
	}
	word := binary.LittleEndian.Uint64(p.staging)
	if err == nil && word != noFault {
		err = explain(word)
	}
	if err != nil {
		d.clearFault()
	}
	return err
}
