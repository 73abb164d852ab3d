//go:build darwin && arm64 && cgo

package accelerate

// #cgo LDFLAGS: -framework Accelerate
// #include <AvailabilityMacros.h>
// // The interface since macOS 13.3, where the build can rely on it; the older one
// // is deprecated there.
// #if MAC_OS_X_VERSION_MIN_REQUIRED >= 130300
// #define ACCELERATE_NEW_LAPACK
// #endif
// #include <Accelerate/Accelerate.h>
//
// static void sgemm(int transA, int transB, int m, int n, int k, float alpha, const float *a, int lda,
//                   const float *b, int ldb, float beta, float *c, int ldc) {
//   cblas_sgemm(CblasRowMajor, transA ? CblasTrans : CblasNoTrans, transB ? CblasTrans : CblasNoTrans,
//               m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
// }
import "C"

// Sgemm computes C = alpha·A·B + beta·C, row-major: A is m×k, or k×m where it is
// taken transposed, B is k×n or n×k, C is m×n, with rows lda, ldb, ldc elements
// apart. It panics on matrices without elements, and on those that their slices
// do not hold. With beta 0 it does not matter what C holds.
//
// Accelerate takes threads as it sees fit (VECLIB_MAXIMUM_THREADS limits them).
func Sgemm(transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	rows, cols := stored(m, k, transA)
	check("A", rows, cols, lda, len(a))
	rows, cols = stored(k, n, transB)
	check("B", rows, cols, ldb, len(b))
	check("C", m, n, ldc, len(c))
	C.sgemm(flag(transA), flag(transB), C.int(m), C.int(n), C.int(k), C.float(alpha), (*C.float)(&a[0]), C.int(lda),
		(*C.float)(&b[0]), C.int(ldb), C.float(beta), (*C.float)(&c[0]), C.int(ldc))
}

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
