// SPDX-License-Identifier: Apache-2.0
//
// Use of the matrix unit of recent x86 processors (AMX), for programs that ask for it. What does not include this
// header contains none of its code.
#ifndef LARQL_AMX_HPP
#define LARQL_AMX_HPP

#include <larql/detail/separate.hpp>

namespace larql {

/// Asks the operating system to let this process use AMX, after which absorption in float uses it where the factors
/// q_a and kv_a hold bfloat16 numbers, whatever they are stored as.
///
/// Linux hands out the unit's 8 KiB of registers per process, once and for all threads: a change to process-wide state
/// (larger signal frames), which larql makes only here. Harmless to repeat and from any thread.
///
/// @return  whether AMX with bfloat16 may be used now; false on processors and systems that have none
LARQL_INLINE bool enable_amx() noexcept;

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/amx.hpp>
#endif

#endif
