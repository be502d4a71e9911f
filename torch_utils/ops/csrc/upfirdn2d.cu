// Upsampling, FIR filtering and downsampling of image planes in one pass, without the zeros in between.
//
// A thread makes kRun neighbouring outputs of a row, so that a value of x that several of them need is read once a row;
// rows and neighbours meet in the L1 cache. The usual shapes (4x4 taps, factors 1 and 2) are unrolled.
#include "types.cuh"

#include <algorithm>

namespace kd {
namespace {

constexpr int kThreads = 256;
constexpr int kMostTaps = 32 * 32;

__host__ __device__ inline int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// Fixed sizes are template arguments; 0 stands for one that is known only at run time.
template <class T, int Up, int Down, int Taps, int Run> __global__ void filter_kernel(Filtering job) {
    using C = typename Computed<T>::type;
    __shared__ C f[Taps ? Taps * Taps : kMostTaps];
    const int taps_x = Taps ? Taps : job.taps_x, taps_y = Taps ? Taps : job.taps_y;
    const int up_x = Up ? Up : job.up_x, up_y = Up ? Up : job.up_y;
    const int down_x = Down ? Down : job.down_x, down_y = Down ? Down : job.down_y;
    for (int i = threadIdx.x; i < taps_x * taps_y; i += blockDim.x)
        f[i] = C(job.f[job.flip ? i : taps_x * taps_y - 1 - i]) * C(job.gain);
    __syncthreads();

    const int runs = (job.out_width + Run - 1) / Run;
    const int64_t work = job.planes * job.out_height * runs, step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < work; i += step) {
        const int ox = static_cast<int>(i % runs) * Run;
        const int64_t row = i / runs;
        const int oy = static_cast<int>(row % job.out_height);
        const T* plane = static_cast<const T*>(job.x) + row / job.out_height * job.in_height * job.in_width;
        C sums[Run] = {};
        // Upsampled coordinates of the first tap; the first one that falls on a pixel of x, and that pixel.
        const int top = oy * down_y - job.pad_y;
        const int first_y = floor_div(top + up_y - 1, up_y);
#pragma unroll
        for (int iy_ = 0; iy_ < (Taps && Up ? (Taps + Up - 1) / Up : 1 << 20); iy_++) {
            const int iy = first_y + iy_, ky = iy * up_y - top;
            if (ky >= taps_y) break;
            if (iy < 0 || iy >= job.in_height) continue;
            const T* line = plane + int64_t{iy} * job.in_width;
            if constexpr (Taps && Up && Down) {
                // The stretch of x that all outputs of the run need, each value read once.
                constexpr int stretch = ((Run - 1) * Down + Taps - 1) / Up + 2;
                const int left = ox * Down - job.pad_x;
                const int first_x = floor_div(left + Up - 1, Up);
                C values[stretch];
#pragma unroll
                for (int j = 0; j < stretch; j++) {
                    const int ix = first_x + j;
                    values[j] = ix >= 0 && ix < job.in_width ? C(widen(line[ix])) : C(0);
                }
                const int phase = first_x * Up - left;  // 0 <= phase < Up: taps before the first pixel
#pragma unroll
                for (int o = 0; o < Run; o++) {
#pragma unroll
                    for (int j = 0; j < stretch; j++) {
                        const int kx = phase + j * Up - o * Down;
                        if (kx >= 0 && kx < Taps) sums[o] += f[ky * Taps + kx] * values[j];
                    }
                }
            } else {
                for (int o = 0; o < Run; o++) {
                    const int left = (ox + o) * down_x - job.pad_x;
                    for (int ix = floor_div(left + up_x - 1, up_x), kx = ix * up_x - left; kx < taps_x; ix++, kx += up_x)
                        if (ix >= 0 && ix < job.in_width) sums[o] += f[ky * taps_x + kx] * C(widen(line[ix]));
                }
            }
        }
        T* out = static_cast<T*>(job.y) + row * job.out_width + ox;
#pragma unroll
        for (int o = 0; o < Run; o++)
            if (ox + o < job.out_width) out[o] = narrow<T>(sums[o]);
    }
}

template <class T, int Up, int Down, int Taps, int Run> cudaError_t launch(const Filtering& job, cudaStream_t stream) {
    const int64_t work = job.planes * job.out_height * ((job.out_width + Run - 1) / Run);
    if (work == 0) return cudaSuccess;
    const int blocks = static_cast<int>(std::min<int64_t>((work + kThreads - 1) / kThreads, 1 << 16));
    filter_kernel<T, Up, Down, Taps, Run><<<blocks, kThreads, 0, stream>>>(job);
    return cudaGetLastError();
}

template <class T> cudaError_t choose(const Filtering& job, cudaStream_t stream) {
    const bool square = job.taps_x == 4 && job.taps_y == 4 && job.up_x == job.up_y && job.down_x == job.down_y;
    if (square && job.up_x == 1 && job.down_x == 1) return launch<T, 1, 1, 4, 4>(job, stream);
    if (square && job.up_x == 2 && job.down_x == 1) return launch<T, 2, 1, 4, 4>(job, stream);
    if (square && job.up_x == 1 && job.down_x == 2) return launch<T, 1, 2, 4, 2>(job, stream);
    return launch<T, 0, 0, 0, 1>(job, stream);
}

}  // namespace

cudaError_t filter_planes(const Filtering& job, cudaStream_t stream) {
    if (job.taps_x * job.taps_y > kMostTaps) return cudaErrorInvalidValue;
    return with_type(job.type, [&](auto type) { return choose<decltype(type)>(job, stream); });
}

}  // namespace kd
