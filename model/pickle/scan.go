package pickle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcodes with a meaning for the scan. The names are Python's.
const (
	opMark       = '('
	opStop       = '.'
	opPersID     = 'Q'
	opReduce     = 'R'
	opBuild      = 'b'
	opGlobal     = 'c'
	opEmptyDict  = '}'
	opEmptyList  = ']'
	opProto      = 0x80
	opLong1      = 0x8a
	opLong4      = 0x8b
	opEmptySet   = 0x8f
	opFrozenSet  = 0x91
	opFrame      = 0x95
	opDup        = '2'
	opGet        = 'g'
	opBinGet     = 'h'
	opLongBinGet = 'j'
	opBytes      = 'B'
	opShortBytes = 'C'
	opBytes8     = 0x8e
)

// Shapes of an instruction's argument: n ≥ 0 bytes, a length of 1, 4 or 8
// bytes and then so many, or text up to one or two newlines.
const (
	length1 = -1 - iota
	length4
	length8
	line
	lines2
)

// arguments has the instructions that torch.save writes with protocols 2 to 5,
// and a few of their older relatives. Missing are those that make instances
// from text (INST, OBJ), extension codes and out-of-band buffers.
var arguments = map[byte]int{
	opMark: 0, opStop: 0, '0': 0, '1': 0, opDup: 0, 'F': line, 'I': line, 'J': 4, 'K': 1, 'L': line, 'M': 2, 'N': 0,
	opPersID: 0, opReduce: 0, 'U': length1, 'T': length4, 'X': length4, 'a': 0, opBuild: 0, opGlobal: lines2,
	'd': 0, opEmptyDict: 0, 'e': 0, opGet: line, opBinGet: 1, opLongBinGet: 4, 'l': 0, opEmptyList: 0, 'p': line, 'q': 1, 'r': 4,
	's': 0, 't': 0, ')': 0, 'u': 0, 'G': 8, opBytes: length4, opShortBytes: length1,
	opProto: 1, 0x81: 0, 0x85: 0, 0x86: 0, 0x87: 0, 0x88: 0, 0x89: 0, opLong1: length1, opLong4: length4,
	0x8c: length1, 0x8d: length8, opBytes8: length8, opEmptySet: 0, 0x90: 0, opFrozenSet: 0, 0x93: 0, 0x94: 0, opFrame: 8,
}

const (
	// maxCost bounds the bytes that a program can allocate, and by that the
	// instructions that it can have. A tensor costs about 7 KB, so it is
	// enough for about 70,000 tensors in one file.
	maxCost = 512 << 20

	// maxText bounds a string.
	maxText = 1 << 20

	// maxShown bounds the text that one container can hold. Instructions that
	// get a string again take three bytes, whatever its length, but as the key
	// of a dict all of it is hashed; and the machine's messages print whole
	// containers (one level deep), bytes as a list of hexadecimal numbers.
	maxShown  = 32 << 20
	byteShown = 8

	// maxLong bounds integers: the machine decodes them in quadratic time.
	maxLong = 32
)

// What an instruction can allocate, in bytes, from above: a slot on the stack,
// an entry in the memo and a place in an ordered dict, all three as growing
// arrays or maps; and for some the object itself.
const (
	costAny    = 160
	costMark   = 320 // a new stack of 16 slots
	costDict   = 160
	costList   = 96
	costSet    = 320
	costReduce = 512 // an ordered dict, or a tensor of maxRank dimensions
	costPersID = 256
	costByte   = 3   // of an argument: read, converted, as part of a line that grew
	costBuild  = 16  // not memory but time: to copy one attribute, for each instruction before
	costBuilt  = 100 // one more attribute, for each string before
)

// scan reads a program up to its STOP without running it, and returns its
// length. A program that passes cannot make the machine allocate more than
// about maxCost bytes, nor run for more than a few seconds.
func scan(b []byte) (int, error) {
	s := scanner{b: b}
	for {
		op, at, err := s.next()
		if err != nil {
			return 0, fmt.Errorf("pickle program, byte %d: %w", at, err)
		}
		if op != opStop {
			continue
		}
		if s.frames > s.at {
			return 0, fmt.Errorf("pickle program: a frame runs %d bytes past its end", s.frames-s.at)
		}
		return s.at, nil
	}
}

// scanner walks over the instructions of a program.
type scanner struct {
	b       []byte
	at      int // of the next byte
	ops     int // instructions so far
	strings int // instructions with text so far
	text    int // bytes of text so far
	longest int // of the texts so far
	gets    int // instructions so far that push what exists already
	frames  int // where the last frame ends
	cost    int
}

// next checks one instruction; at is its place.
func (s *scanner) next() (op byte, at int, err error) {
	at = s.at
	if at == len(s.b) {
		return 0, at, errors.New("ends without STOP: truncated")
	}
	op = s.b[at]
	shape, ok := arguments[op]
	if !ok {
		return op, at, fmt.Errorf("instruction %#02x, which torch.save does not write", op)
	}
	s.at++
	arg, err := s.argument(shape)
	if err != nil {
		return op, at, err
	}
	if err := s.check(op, shape, arg); err != nil {
		return op, at, err
	}
	s.charge(op, shape, len(arg))
	switch {
	case s.cost > maxCost:
		return op, at, errors.New("too many instructions for a file of weights: convert it to safetensors")
	case s.shown() > maxShown:
		return op, at, errors.New("too much text for a file of weights: convert it to safetensors")
	}
	return op, at, nil
}

// argument cuts an instruction's argument off, without its length.
func (s *scanner) argument(shape int) ([]byte, error) {
	rest := s.b[s.at:]
	n := 0
	switch shape {
	case line, lines2:
		for range line - shape + 1 {
			k := bytes.IndexByte(rest[n:min(len(rest), n+maxText)], '\n')
			if k < 0 {
				return nil, errors.New("a line without end")
			}
			n += k + 1
		}
	case length1, length4, length8:
		width := [...]int{1, 4, 8}[length1-shape]
		if len(rest) < width {
			return nil, errors.New("ends in a length: truncated")
		}
		var wide [8]byte
		copy(wide[:], rest[:width])
		s.at, rest = s.at+width, rest[width:]
		length := binary.LittleEndian.Uint64(wide[:])
		if length > uint64(len(rest)) {
			return nil, fmt.Errorf("a length of %d bytes, past the end", length)
		}
		n = int(length)
	default:
		if n = shape; n > len(rest) {
			return nil, errors.New("ends in an argument: truncated")
		}
	}
	s.at += n
	return rest[:n], nil
}

func (s *scanner) check(op byte, shape int, arg []byte) error {
	switch op {
	case opLong1, opLong4:
		if len(arg) == 0 || len(arg) > maxLong {
			return fmt.Errorf("an integer of %d bytes, allowed are 1 to %d", len(arg), maxLong)
		}
	case opFrame:
		n := binary.LittleEndian.Uint64(arg)
		if n > uint64(len(s.b)-s.at) {
			return fmt.Errorf("a frame of %d bytes, past the end", n)
		}
		s.frames = max(s.frames, s.at+int(n))
	case opGlobal:
		module, name, _ := bytes.Cut(bytes.TrimSuffix(arg, []byte("\n")), []byte("\n"))
		return checkClass(string(module), string(name))
	default:
		if shape < 0 && len(arg) > maxText {
			return fmt.Errorf("a text of %d bytes, at most %d are allowed", len(arg), maxText)
		}
	}
	return nil
}

// charge adds what an instruction can cost.
func (s *scanner) charge(op byte, shape, arg int) {
	s.ops++
	s.cost += costAny + costByte*arg
	switch op {
	case opBytes, opShortBytes, opBytes8:
		arg *= byteShown
	}
	if shape < 0 {
		s.strings++
		s.text += arg
		s.longest = max(s.longest, arg)
	}
	switch op {
	case opDup, opGet, opBinGet, opLongBinGet:
		s.gets++
	case opMark:
		s.cost += costMark
	case opEmptyDict:
		s.cost += costDict
	case opEmptyList:
		s.cost += costList
	case opEmptySet, opFrozenSet:
		s.cost += costSet
	case opReduce:
		s.cost += costReduce
	case opPersID:
		s.cost += costPersID
	case opBuild: // copies a dict, which may have been built once and be used often
		s.cost += costBuild*s.ops + costBuilt*s.strings + s.shown()
	}
}

// shown bounds the text that any one container can hold.
func (s *scanner) shown() int { return s.text + s.gets*s.longest }
