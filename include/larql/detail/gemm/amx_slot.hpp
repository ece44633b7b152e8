// SPDX-License-Identifier: Apache-2.0
//
// Where a program that enables AMX puts the product that uses it. Others contain none of its code.
#ifndef LARQL_DETAIL_GEMM_AMX_SLOT_HPP
#define LARQL_DETAIL_GEMM_AMX_SLOT_HPP

#include <larql/detail/gemm/product.hpp>
#include <larql/executor.hpp>

#include <atomic>

namespace larql::detail {

/// C = A B for a product whose rows of B are steps of the sum.
using amx_multiply = void (*)(const product<float>& p, executor& threads);

/// Null until AMX is enabled.
inline std::atomic<amx_multiply>& amx_slot() noexcept {
    static std::atomic<amx_multiply> slot{nullptr};
    return slot;
}

}  // namespace larql::detail

#endif
