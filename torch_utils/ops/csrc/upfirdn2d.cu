// Upsampling, FIR filtering and downsampling of image planes in one pass, without the zeros in between.
#include "types.cuh"

#include <algorithm>

namespace kd {
namespace {

constexpr int kThreads = 256;
constexpr int kMostTaps = 32 * 32;

__host__ __device__ constexpr int ceil_div(int a, int b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// The shapes of StyleGAN2: 4x4 taps, factors 1 and 2. A thread makes Run x Run outputs, so that what they share of x is
// read once, into registers; so are the taps. `Phase`: how many taps come before the first one that falls on a pixel of x
// rather than on a zero, the same for all threads as Run is even.
template <class T, int Up, int Down, int PhaseX, int PhaseY, int Run> __global__ void filter_4x4(Filtering job) {
    using C = typename Computed<T>::type;
    constexpr int Taps = 4, stretch = ceil_div((Run - 1) * Down + Taps, Up);  // pixels of x that Run outputs need
    struct alignas(sizeof(T) * Run) Many { T values[Run]; };
    C f[Taps][Taps];
#pragma unroll
    for (int k = 0; k < Taps * Taps; k++)
        f[k / Taps][k % Taps] = C(job.f[job.flip ? k : Taps * Taps - 1 - k]) * C(job.gain);

    const int columns = (job.out_width + Run - 1) / Run, rows = (job.out_height + Run - 1) / Run;
    const int64_t work = job.planes * rows * columns, step = int64_t{gridDim.x} * blockDim.x;
    const bool whole = job.out_width % Run == 0;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < work; i += step) {
        const int ox = static_cast<int>(i % columns) * Run;
        const int64_t rest = i / columns;
        const int oy = static_cast<int>(rest % rows) * Run;
        const int64_t plane = rest / rows;
        const T* x = static_cast<const T*>(job.x) + plane * job.in_height * job.in_width;
        const int ix = ceil_div(ox * Down - job.pad_x, Up), iy = ceil_div(oy * Down - job.pad_y, Up);
        const bool inside = ix >= 0 && ix + stretch <= job.in_width;
        C sums[Run][Run] = {};
#pragma unroll
        for (int r = 0; r < stretch; r++) {
            if (iy + r < 0 || iy + r >= job.in_height) continue;
            const T* line = x + int64_t{iy + r} * job.in_width + ix;
            C values[stretch];
#pragma unroll
            for (int c = 0; c < stretch; c++)
                values[c] = inside || (ix + c >= 0 && ix + c < job.in_width) ? C(widen(line[c])) : C(0);
#pragma unroll
            for (int a = 0; a < Run; a++) {
                const int ky = PhaseY + r * Up - a * Down;
                if (ky < 0 || ky >= Taps) continue;
#pragma unroll
                for (int b = 0; b < Run; b++)
#pragma unroll
                    for (int c = 0; c < stretch; c++) {
                        const int kx = PhaseX + c * Up - b * Down;
                        if (kx >= 0 && kx < Taps) sums[a][b] += f[ky][kx] * values[c];
                    }
            }
        }
        T* y = static_cast<T*>(job.y) + (plane * job.out_height + oy) * job.out_width + ox;
#pragma unroll
        for (int a = 0; a < Run; a++) {
            if (oy + a >= job.out_height) break;
            Many many;
#pragma unroll
            for (int b = 0; b < Run; b++) many.values[b] = narrow<T>(sums[a][b]);
            if (whole) {
                *reinterpret_cast<Many*>(y + int64_t{a} * job.out_width) = many;
            } else {
#pragma unroll
                for (int b = 0; b < Run; b++)
                    if (ox + b < job.out_width) y[int64_t{a} * job.out_width + b] = many.values[b];
            }
        }
    }
}

// Everything else: any taps, any factors. A thread makes one output.
template <class T> __global__ void filter_any(Filtering job) {
    using C = typename Computed<T>::type;
    __shared__ C f[kMostTaps];
    const int taps = job.taps_x * job.taps_y;
    for (int k = threadIdx.x; k < taps; k += blockDim.x) f[k] = C(job.f[job.flip ? k : taps - 1 - k]) * C(job.gain);
    __syncthreads();
    const int64_t work = job.planes * job.out_height * job.out_width, step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < work; i += step) {
        const int64_t row = i / job.out_width;
        const T* x = static_cast<const T*>(job.x) + row / job.out_height * job.in_height * job.in_width;
        const int left = static_cast<int>(i % job.out_width) * job.down_x - job.pad_x;
        const int top = static_cast<int>(row % job.out_height) * job.down_y - job.pad_y;
        C sum = 0;
        for (int iy = ceil_div(top, job.up_y); iy * job.up_y - top < job.taps_y; iy++) {
            if (iy < 0 || iy >= job.in_height) continue;
            for (int ix = ceil_div(left, job.up_x); ix * job.up_x - left < job.taps_x; ix++)
                if (ix >= 0 && ix < job.in_width)
                    sum += f[(iy * job.up_y - top) * job.taps_x + ix * job.up_x - left] *
                           C(widen(x[int64_t{iy} * job.in_width + ix]));
        }
        static_cast<T*>(job.y)[i] = narrow<T>(sum);
    }
}

int blocks_for(int64_t work) { return static_cast<int>(std::min<int64_t>((work + kThreads - 1) / kThreads, 1 << 18)); }

template <class T, int Up, int Down, int PhaseX, int PhaseY, int Run>
cudaError_t launch(const Filtering& job, cudaStream_t stream) {
    const int64_t work = job.planes * ((job.out_height + Run - 1) / Run) * ((job.out_width + Run - 1) / Run);
    filter_4x4<T, Up, Down, PhaseX, PhaseY, Run><<<blocks_for(work), kThreads, 0, stream>>>(job);
    return cudaGetLastError();
}

template <class T> cudaError_t choose(const Filtering& job, cudaStream_t stream) {
    if (job.planes * job.out_height * job.out_width == 0) return cudaSuccess;
    const bool usual = job.taps_x == 4 && job.taps_y == 4 && job.up_x == job.up_y && job.down_x == job.down_y;
    if (usual && job.up_x == 1 && job.down_x == 1) return launch<T, 1, 1, 0, 0, 4>(job, stream);
    if (usual && job.up_x == 1 && job.down_x == 2) return launch<T, 1, 2, 0, 0, 2>(job, stream);
    if (usual && job.up_x == 2 && job.down_x == 1) {
        const bool odd_x = job.pad_x & 1, odd_y = job.pad_y & 1;
        if (odd_x && odd_y) return launch<T, 2, 1, 1, 1, 4>(job, stream);
        if (odd_x) return launch<T, 2, 1, 1, 0, 4>(job, stream);
        if (odd_y) return launch<T, 2, 1, 0, 1, 4>(job, stream);
        return launch<T, 2, 1, 0, 0, 4>(job, stream);
    }
    filter_any<T><<<blocks_for(job.planes * job.out_height * job.out_width), kThreads, 0, stream>>>(job);
    return cudaGetLastError();
}

}  // namespace

cudaError_t filter_planes(const Filtering& job, cudaStream_t stream) {
    if (job.taps_x * job.taps_y > kMostTaps) return cudaErrorInvalidValue;
    return with_type(job.type, [&](auto type) { return choose<decltype(type)>(job, stream); });
}

}  // namespace kd
