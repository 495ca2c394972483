package cuda

import (
	"math"
	"testing"
)

const (
	fenceAsync = `fence\.proxy\.async\.shared::cta;`
	noFence90  = "fence.proxy.async is missing"
	waitFor    = `mbarrier\.try_wait\.\S+ p, \[%r\d+\], %r\d+;` // of the producer for empty stages, of the others for full ones
	noWaitFor  = "setp.eq.u32 p, 0, 0;"
	allOf      = `vote\.sync\.all\.pred(\s+%p\d+), %p\d+, %r\d+;`
	anyOf      = `vote\.sync\.any\.pred(\s+%p\d+), %p\d+, %r\d+;`
)

// Bugs of attention90. A kernel's text has what brings first (keys, then values), then queries, then what multiplies.
var attention90Mutations = []mutation{
	{"no fence after keys", "attention90_64_3", fenceAsync, 0, "", playPrefill, noFence90},
	{"no fence after values", "attention90_64_3", fenceAsync, 1, "", playPrefill, noFence90},
	{"no fence after queries", "attention90_64_3", fenceAsync, 2, "", playPrefill, noFence90},
	{"no barrier after queries", "attention90_64_3", barrierOf, 0, "", playPrefill, race},
	{"no wait for keys' empty stage", "attention90_64_3", waitFor, 0, noWaitFor, playLong90, stuck},
	{"no wait for values' empty stage", "attention90_64_3", waitFor, 1, noWaitFor, playLong90, onItsWay},
	{"no wait for keys", "attention90_64_3", waitFor, 2, noWaitFor, playPrefill, race},
	{"no wait for values", "attention90_64_3", waitFor, 3, noWaitFor, playPrefill, race},
	{"the phase of what brings stands still", "attention90_64_3", flip, 2, noFlip, playLong90, stuck},
	{"the phase of what multiplies stands still", "attention90_64_3", flip, 4, noFlip, playLong90, stuck},
	{"keys are not given back", "attention90_64_3", arrive, 2, "", playLong90, stuck},
	{"values are not given back", "attention90_64_3", arrive, 3, "", playLong90, stuck},
	{"keys' parts are not exchanged", "attention90_64_3", flip, 1, noFlip, playPrefill, otherAnswer},
	{"queries' parts are not exchanged", "attention90_64_3", flip, 3, noFlip, playPrefill, otherAnswer},
	{"no wait for scores", "attention90_64_3", waitAll, 0, "", playPrefill, otherAnswer},
	{"no wait for the blend", "attention90_64_3", waitAll, 1, "", playLong90, onItsWay},
	{"values are not turned", "attention90_64_3", `1, 1, 1, 1;`, 0, "1, 1, 1, 0;", playPrefill, race},
	{"two registers of weights exchanged", "attention90_64_3", `\}, \{(%r\d+),(%r\d+),`, 11, "}, {${2},${1},", playPrefill, otherAnswer},
	{"the maximum of half a row's keys", "attention90_64_3", `mov\.u32(\s+%r\d+, )2;`, 0, "mov.u32${1}1;", playPrefill, otherAnswer},
	{"a block is taken as seen by all", "attention90_64_3", allOf, 3, "mov.pred${1}, -1;", playPrefill, otherAnswer},
	{"what was before is not rescaled", "attention90_64_3", anyOf, 1, "mov.pred${1}, 0;", playGrowing, otherAnswer},
	{"what was before is not rescaled, where all is seen", "attention90_64_3", anyOf, 2, "mov.pred${1}, 0;", playGrowing, otherAnswer},
	{"a value that is not finite is not cleaned away", "attention90_64_3", anyOf, 0, "mov.pred${1}, 0;", playSpoiled, otherAnswer},
	{"no wait for a segment's keys", "attention90_64_3", waitFor, 2, noWaitFor, playDecode, race},
	{"no barrier before keys are overwritten", "attention90_v1", barrier, 3, "", playFirst90, race},
}

func TestAttention90Mutations(t *testing.T) { plantAll(t, 90, attention90Mutations) }

// playLong90 takes the stages round more than once.
func playLong90(t *testing.T, d *Device) ([]byte, error) { return attend(d, 32, 2, 250, true, false) }

func playFirst90(t *testing.T, d *Device) ([]byte, error) {
	d.naive = true
	return playPrefill(t, d)
}

func playGrowing(_ *testing.T, d *Device) ([]byte, error) {
	q, key, v := growing(96, 24, 1.5)
	return oneHead(d, 24, 0.25, q, key, v)
}

// playSpoiled has a value that is not finite, of which the first rows see nothing.
func playSpoiled(_ *testing.T, d *Device) ([]byte, error) {
	q, key, v := growing(30, 24, 1)
	v[20*24] = float32(math.Inf(1))
	return oneHead(d, 24, 0.25, q, key, v)
}
