// What the kernels take: raw pointers and sizes, no torch. All tensors are dense; images are NCHW planes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace kd {

enum class Type { float64, float32, float16, bfloat16 };

// y[p, oy, ox] = gain * sum over taps k of f[k] * x[p, (o * down + k - pad) / up], where up divides and x has it.
struct Filtering {
    Type type;
    const void* x;   // [planes, in_height, in_width]
    const float* f;  // [taps_y, taps_x]
    void* y;         // [planes, out_height, out_width]
    int64_t planes;
    int in_width, in_height, out_width, out_height;
    int taps_x, taps_y;
    int up_x, up_y, down_x, down_y;
    int pad_x, pad_y;  // before the first column and row, in upsampled pixels; negative crops
    bool flip;         // false: the taps are reversed (convolution), true: as they are (correlation)
    double gain;
};
cudaError_t filter_planes(const Filtering& job, cudaStream_t stream);

// y = clamp(v > 0 ? v : slope * v) with v = factor * x + gain * b[channel]. No clamp: an infinite one.
struct Kinking {
    Type type;
    const void* x;  // [count], or the gradient of the result
    const void* b;  // [channels] or null; of the same type
    const void* y;  // the result, for the derivative
    void* out;      // [count]
    int64_t count, inner;  // element i belongs to channel (i / inner) % channels
    int channels;
    double factor, gain, slope, clamp;
};
cudaError_t kink(const Kinking& job, cudaStream_t stream);
// out = x * factor where y > 0, x * factor * slope where not, 0 where y was clamped.
cudaError_t kink_gradient(const Kinking& job, cudaStream_t stream);

}  // namespace kd
