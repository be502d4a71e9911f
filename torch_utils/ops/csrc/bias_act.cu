// Bias, one-kink activation, gain and clamp: one read and one write of the images, forward and back.
#include "types.cuh"

#include <algorithm>
#include <cmath>

namespace kd {
namespace {

constexpr int kThreads = 256;

template <class C> __device__ inline C kinked(C v, C slope, C clamp) {
    v = v > 0 ? v : v * slope;
    return v > clamp ? clamp : v < -clamp ? -clamp : v;  // NaN stays NaN
}

template <class C> __device__ inline C kinked_gradient(C g, C y, C factor, C slope, C clamp) {
    if (y >= clamp || y <= -clamp) return 0;
    return g * (y > 0 ? factor : factor * slope);
}

// `Gradient`: x is the gradient and y decides. `SameChannel`: all of a pack belong to one channel.
template <class T, bool Gradient, int Packed> __global__ void kink_kernel(Kinking job) {
    using C = typename Computed<T>::type;
    struct alignas(sizeof(T) * Packed) Many { T values[Packed]; };
    const C factor = job.factor, gain = job.gain, slope = job.slope, clamp = job.clamp;
    const Many* x = static_cast<const Many*>(job.x);
    const Many* y = static_cast<const Many*>(job.y);
    const T* b = static_cast<const T*>(job.b);
    Many* out = static_cast<Many*>(job.out);
    const int64_t packs = job.count / Packed, step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += step) {
        Many in = x[i], result;
        if (Gradient) {
            Many at = y[i];
#pragma unroll
            for (int k = 0; k < Packed; k++)
                result.values[k] = narrow<T>(kinked_gradient<C>(widen(in.values[k]), widen(at.values[k]), factor, slope, clamp));
        } else {
            // A pack never crosses a channel: the launcher packs only where it divides `inner`.
            C shift = b ? gain * C(widen(b[(i * Packed / job.inner) % job.channels])) : C(0);
#pragma unroll
            for (int k = 0; k < Packed; k++)
                result.values[k] = narrow<T>(kinked<C>(factor * C(widen(in.values[k])) + shift, slope, clamp));
        }
        out[i] = result;
    }
}

template <class T, bool Gradient> cudaError_t launch(const Kinking& job, cudaStream_t stream) {
    if (job.count == 0) return cudaSuccess;
    constexpr int wide = Pack<T>::size;
    auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
    const bool packed = job.count % wide == 0 && (Gradient || !job.b || job.inner % wide == 0) && aligned(job.x) &&
                        aligned(job.y) && aligned(job.out);
    const int64_t work = packed ? job.count / wide : job.count;
    const int blocks = static_cast<int>(std::min<int64_t>((work + kThreads - 1) / kThreads, 1 << 16));
    if (packed)
        kink_kernel<T, Gradient, wide><<<blocks, kThreads, 0, stream>>>(job);
    else
        kink_kernel<T, Gradient, 1><<<blocks, kThreads, 0, stream>>>(job);
    return cudaGetLastError();
}

}  // namespace

cudaError_t kink(const Kinking& job, cudaStream_t stream) {
    return with_type(job.type, [&](auto type) { return launch<decltype(type), false>(job, stream); });
}

cudaError_t kink_gradient(const Kinking& job, cudaStream_t stream) {
    return with_type(job.type, [&](auto type) { return launch<decltype(type), true>(job, stream); });
}

}  // namespace kd
