// SPDX-License-Identifier: Apache-2.0
//
// The bodies of amx.hpp.
#ifndef LARQL_DETAIL_BODIES_AMX_HPP
#define LARQL_DETAIL_BODIES_AMX_HPP

#include <larql/amx.hpp>
#include <larql/detail/amx.hpp>
#include <larql/detail/gemm/amx.hpp>
#include <larql/detail/gemm/amx_slot.hpp>
#include <larql/detail/separate.hpp>

#include <atomic>

namespace larql {

LARQL_INLINE bool enable_amx() noexcept {
#if LARQL_AMX
    if (!detail::request_amx()) return false;
    detail::amx_slot().store(&detail::multiply_with_amx, std::memory_order_release);
    return true;
#else
    return false;
#endif
}

}  // namespace larql

#endif
