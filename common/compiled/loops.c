/* The reducer's loops that every byte of every delta goes through: one pass where numpy makes three.
 *
 * Each operation is IEEE 754's, rounded once, in the order that docs/protocol.md#arithmetic fixes: the bits are those of
 * common/reduce/loops.py, which is the definition. So a product is never fused with the sum that it goes into, and nothing is
 * reassociated: build with -ffp-contract=off and without -ffast-math. Vectors change neither, as no loop but the tree's adds up
 * across elements, and the tree's shape is written out.
 */
#include <float.h>
#include <stddef.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "-ffast-math changes bits"
#endif
#if !defined(FLT_EVAL_METHOD) || FLT_EVAL_METHOD != 0
#error "this processor computes with more digits than a double has"
#endif

/* One library for all processors of its kind: which loop runs is chosen when it is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

enum { LEAF = 65536, AT_ONCE = 1024 };

/* The CRC-32 of this file, which whoever compiles it says. */
unsigned int llmasos_loops_source(void)
{
    return LOOPS_SOURCE;
}

/* sum += coefficient * delta */
FOR_EACH_PROCESSOR
void llmasos_add_product(double *restrict sum, const float *restrict delta, double coefficient, size_t elements)
{
    for (size_t i = 0; i < elements; i++) {
        const double product = coefficient * (double)delta[i];
        sum[i] = sum[i] + product;
    }
}

/* mean = float32(sum / divisor); mean may be the memory of sum, as what is written was read before. */
FOR_EACH_PROCESSOR
void llmasos_quotients(const double *sum, float *mean, double divisor, size_t elements)
{
    float means[AT_ONCE];
    for (size_t done = 0; done < elements; done += AT_ONCE) {
        const size_t some = elements - done < AT_ONCE ? elements - done : AT_ONCE;
        for (size_t i = 0; i < some; i++)
            means[i] = (float)(sum[done + i] / divisor);
        memcpy(mean + done, means, some * sizeof *means);
    }
}

static inline double squared(float value)
{
    return (double)value * (double)value;
}

/* The fixed tree's sum of a leaf's squares; its first three levels in one pass. */
FOR_EACH_PROCESSOR
double llmasos_sum_of_squares(const float *values)
{
    enum { EIGHTH = LEAF / 8 };
    double sums[EIGHTH];
    for (size_t i = 0; i < EIGHTH; i++) {
        const float *x = values + i;
        sums[i] = ((squared(x[0]) + squared(x[4 * EIGHTH])) + (squared(x[2 * EIGHTH]) + squared(x[6 * EIGHTH])))
                + ((squared(x[EIGHTH]) + squared(x[5 * EIGHTH])) + (squared(x[3 * EIGHTH]) + squared(x[7 * EIGHTH])));
    }
    for (size_t half = EIGHTH / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            sums[i] = sums[i] + sums[i + half];
    return sums[0];
}
