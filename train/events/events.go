// Package events writes TensorBoard's event files: records framed as TFRecord, each an Event message of
// tensorflow/core/util/event.proto in protobuf's wire format, with scalars as simple values.
package events

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"slices"
)

// Name is how a file must be called for TensorBoard to find it, followed by a time and a host.
const Name = "events.out.tfevents."

// A Writer appends events to a file.
type Writer struct{ w io.Writer }

// NewWriter begins a file: its first record says which version of the format it has. at is in seconds
// since 1970.
func NewWriter(w io.Writer, at float64) (*Writer, error) {
	e := &Writer{w}
	event := double(nil, 1, at)
	return e, e.record(delimited(event, 3, []byte("brain.Event:2")))
}

// Append goes on with a file that NewWriter began.
func Append(w io.Writer) *Writer { return &Writer{w} }

// Scalars writes the values of a step as one event.
func (e *Writer) Scalars(at float64, step int64, values map[string]float64) error {
	var summary []byte
	for _, tag := range slices.Sorted(maps.Keys(values)) {
		value := delimited(nil, 1, []byte(tag))
		value = binary.AppendUvarint(value, 2<<3|5) // simple_value, fixed32
		value = binary.LittleEndian.AppendUint32(value, math.Float32bits(float32(values[tag])))
		summary = delimited(summary, 1, value)
	}
	event := double(nil, 1, at)
	event = binary.AppendUvarint(event, 2<<3) // step, varint (type 0)
	event = binary.AppendUvarint(event, uint64(step))
	return e.record(delimited(event, 5, summary))
}

// record frames data: its length, the length's checksum, itself, its checksum; in one Write.
func (e *Writer) record(data []byte) error {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, len(data)+16), uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, masked(b))
	b = append(b, data...)
	b = binary.LittleEndian.AppendUint32(b, masked(data))
	_, err := e.w.Write(b)
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is TFRecord's checksum: CRC-32C rotated, so that data which holds a checksum of its own has
// another.
func masked(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// delimited appends a length-delimited field.
func delimited(b []byte, field uint64, v []byte) []byte {
	b = binary.AppendUvarint(b, field<<3|2)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// double appends a field of eight bytes.
func double(b []byte, field uint64, v float64) []byte {
	b = binary.AppendUvarint(b, field<<3|1)
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}
