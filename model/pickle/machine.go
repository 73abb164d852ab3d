package pickle

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/nlpodyssey/gopickle/pickle"
	"github.com/nlpodyssey/gopickle/types"

	"graft/kernels"
)

// run scans the program at the beginning of b and runs it. It returns the
// object that the program built and the program's length. storageOf turns a
// persistent id into a storage; nil refuses all.
func run(b []byte, storageOf func(id) (*storage, error)) (object any, n int, err error) {
	if n, err = scan(b); err != nil {
		return nil, 0, err
	}
	u := pickle.NewUnpickler(bytes.NewReader(b[:n]))
	u.FindClass = findClass
	u.PersistentLoad = func(v any) (any, error) {
		id, err := parseID(v)
		if err != nil {
			return nil, err
		}
		if storageOf == nil {
			return nil, errors.New("a storage where none belongs")
		}
		return storageOf(id)
	}
	object, err = load(&u)
	if err != nil {
		return nil, 0, fmt.Errorf("pickle program: %w", err)
	}
	return object, n, nil
}

// load runs the machine, which panics on some malformed programs, such as a
// dict's entries without a value.
func load(u *pickle.Unpickler) (object any, err error) {
	defer func() {
		if r := recover(); r != nil {
			object, err = nil, errors.New("malformed: "+short(fmt.Sprint(r)))
		}
	}()
	if object, err = u.Load(); err != nil {
		var own *ownError
		if errors.As(err, &own) {
			return nil, err
		}
		return nil, errors.New("malformed: " + short(err.Error()))
	}
	return object, nil
}

// short makes a message of the machine, which may quote any bytes of the file
// and any amount of them, fit for printing.
func short(s string) string {
	const most = 120
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '.'
	}, s[:min(len(s), 4*most)])
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// ownError marks a message of this package, which says what to do.
type ownError struct{ text string }

func (e *ownError) Error() string { return e.text }

func errorf(format string, args ...any) error { return &ownError{fmt.Sprintf(format, args...)} }

// Names that a program may use, besides the storage classes.
const (
	orderedDict      = "collections.OrderedDict"
	rebuildTensor    = "torch._utils._rebuild_tensor_v2"
	rebuildParameter = "torch._utils._rebuild_parameter"
)

// storageClasses are the element types by the name of torch's storage class.
var storageClasses = map[string]kernels.DType{
	"torch.FloatStorage": kernels.F32, "torch.DoubleStorage": kernels.F64,
	"torch.HalfStorage": kernels.F16, "torch.BFloat16Storage": kernels.BF16,
	"torch.LongStorage": kernels.I64, "torch.IntStorage": kernels.I32, "torch.ShortStorage": kernels.I16,
	"torch.CharStorage": kernels.I8, "torch.ByteStorage": kernels.U8, "torch.BoolStorage": kernels.Bool,
}

func checkClass(module, name string) error {
	full := module + "." + name
	switch full {
	case orderedDict, rebuildTensor, rebuildParameter:
		return nil
	}
	if _, ok := storageClasses[full]; ok {
		return nil
	}
	return errorf("torch: %s is not allowed in a checkpoint: convert the file to safetensors", short(full))
}

// findClass is asked for every name but OrderedDict, which the machine knows.
func findClass(module, name string) (any, error) {
	if err := checkClass(module, name); err != nil {
		return nil, err
	}
	switch full := module + "." + name; full {
	case rebuildTensor:
		return function(callRebuildTensor), nil
	case rebuildParameter:
		return function(callRebuildParameter), nil
	default:
		return storageClasses[full], nil
	}
}

// function is a Python function that a program may call.
type function func(args []any) (any, error)

func (f function) Call(args ...any) (any, error) { return f(args) }

// callRebuildTensor is _rebuild_tensor_v2(storage, offset, size, stride,
// requires_grad, hooks[, metadata]).
func callRebuildTensor(args []any) (any, error) {
	if len(args) != 6 && len(args) != 7 {
		return nil, errorf("torch: a tensor made from %d values, want 6 or 7", len(args))
	}
	s, ok1 := args[0].(*storage)
	offset, ok2 := args[1].(int)
	shape, ok3 := ints(args[2])
	stride, ok4 := ints(args[3])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, errorf("torch: a tensor made from values of the wrong types")
	}
	if len(args) == 7 && !empty(args[6]) { // its bits mean something else: negated, conjugated
		return nil, errorf("torch: a tensor with metadata: clone it before saving, or convert the file to safetensors")
	}
	return newView(s, offset, shape, stride)
}

// callRebuildParameter is _rebuild_parameter(tensor, requires_grad, hooks).
func callRebuildParameter(args []any) (any, error) {
	if len(args) == 3 {
		if v, ok := args[0].(*view); ok {
			return v, nil
		}
	}
	return nil, errorf("torch: a parameter made from no tensor")
}

// ints returns the numbers of a tuple that is short enough for a shape.
func ints(v any) ([]int, bool) {
	t, ok := v.(*types.Tuple)
	if !ok || t.Len() > maxRank {
		return nil, false
	}
	out := make([]int, t.Len())
	for i := range out {
		if out[i], ok = t.Get(i).(int); !ok {
			return nil, false
		}
	}
	return out, true
}

// empty reports whether v is None or a dict without entries.
func empty(v any) bool {
	switch d := v.(type) {
	case nil:
		return true
	case *types.Dict:
		return d.Len() == 0
	case *types.OrderedDict:
		return d.Len() == 0
	}
	return false
}

// id is the persistent id of a storage: ("storage", class, key, location,
// elements) and, in the older format, a sixth value for views of storages.
type id struct {
	dtype    kernels.DType
	key      string
	elements int
}

func parseID(v any) (id, error) {
	bad := errorf("torch: a storage with a malformed id")
	t, ok := v.(*types.Tuple)
	if !ok || t.Len() != 5 && t.Len() != 6 || t.Get(0) != "storage" {
		return id{}, bad
	}
	dtype, ok1 := t.Get(1).(kernels.DType)
	key, ok2 := t.Get(2).(string)
	_, ok3 := t.Get(3).(string)
	elements, ok4 := t.Get(4).(int)
	if !ok1 || !ok2 || !ok3 || !ok4 || elements < 0 {
		return id{}, bad
	}
	if t.Len() == 6 && t.Get(5) != nil {
		return id{}, errorf("torch: storage %s is a view of another: convert the file to safetensors", short(key))
	}
	return id{dtype, key, elements}, nil
}
