// Accelerate's sgemm, in plain C, declared as in vecLib/cblas.h and, since the SDK
// of macOS 13.3, vecLib/cblas_new.h.
#if FAKE_OLDEST >= 130300 && !defined ACCELERATE_NEW_LAPACK
#error cblas_sgemm is deprecated since macOS 13.3
#elif FAKE_OLDEST < 130300 && defined ACCELERATE_NEW_LAPACK
#error this cblas_sgemm is available since macOS 13.3
#endif

enum CBLAS_ORDER { CblasRowMajor = 101, CblasColMajor = 102 };
enum CBLAS_TRANSPOSE { CblasNoTrans = 111, CblasTrans = 112, CblasConjTrans = 113 };

static void cblas_sgemm(const enum CBLAS_ORDER order, const enum CBLAS_TRANSPOSE transA, const enum CBLAS_TRANSPOSE transB,
                        const int m, const int n, const int k, const float alpha, const float *a, const int lda,
                        const float *b, const int ldb, const float beta, float *c, const int ldc)
{
    if (order != CblasRowMajor)
        return;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float sum = 0;
            for (int p = 0; p < k; p++)
                sum += (transA == CblasTrans ? a[p * lda + i] : a[i * lda + p]) * (transB == CblasTrans ? b[j * ldb + p] : b[p * ldb + j]);
            c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
        }
}
