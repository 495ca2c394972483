package ptxsim

// A scalar is one of PTX's fundamental types.
type scalar struct {
	name string
	bits int
	kind byte // 's' signed, 'u' unsigned, 'b' bits, 'f' binary floating point, 'h' bf16, 'p' predicate
}

var scalars = map[string]scalar{}

func init() {
	for _, t := range []scalar{
		{"pred", 1, 'p'}, {"u8", 8, 'u'}, {"s8", 8, 's'}, {"b8", 8, 'b'}, {"u16", 16, 'u'}, {"s16", 16, 's'}, {"b16", 16, 'b'},
		{"u32", 32, 'u'}, {"s32", 32, 's'}, {"b32", 32, 'b'}, {"u64", 64, 'u'}, {"s64", 64, 's'}, {"b64", 64, 'b'},
		{"f16", 16, 'f'}, {"f32", 32, 'f'}, {"f64", 64, 'f'}, {"bf16", 16, 'h'}, {"f16x2", 32, 'f'}, {"bf16x2", 32, 'h'},
	} {
		scalars[t.name] = t
	}
}

func (t scalar) signed() bool  { return t.kind == 's' }
func (t scalar) integer() bool { return t.kind == 's' || t.kind == 'u' || t.kind == 'b' }
func (t scalar) bytes() int    { return (t.bits + 7) / 8 }

// mask is t's bits in a word.
func (t scalar) mask() uint64 { return 1<<t.bits - 1 } // a shift by 64 gives 0, and all bits

// extend makes a whole word of the low bits of v: by sign or by zeros.
func (t scalar) extend(v uint64) uint64 {
	if t.signed() {
		return uint64(int64(v<<(64-t.bits)) >> (64 - t.bits))
	}
	return v & t.mask()
}
