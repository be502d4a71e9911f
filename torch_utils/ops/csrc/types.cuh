// Storage types and the float (for double: double) that is computed in.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels.h"

namespace kd {

template <class T> struct Computed { using type = float; };
template <> struct Computed<double> { using type = double; };

template <class T> __host__ __device__ inline typename Computed<T>::type widen(T value) { return value; }
template <> __host__ __device__ inline float widen<__half>(__half value) { return __half2float(value); }
template <> __host__ __device__ inline float widen<__nv_bfloat16>(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T> __host__ __device__ inline T narrow(typename Computed<T>::type value) { return value; }
template <> __host__ __device__ inline __half narrow<__half>(float value) { return __float2half(value); }
template <> __host__ __device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float value) { return __float2bfloat16(value); }

// 16 bytes of T, read and written at once.
template <class T> struct alignas(16) Pack {
    static constexpr int size = 16 / sizeof(T);
    T values[size];
};

// Calls `run` with a value of the type.
template <class Run> cudaError_t with_type(Type type, Run run) {
    switch (type) {
        case Type::float64: return run(double{});
        case Type::float32: return run(float{});
        case Type::float16: return run(__half{});
        default: return run(__nv_bfloat16{});
    }
}

}  // namespace kd
