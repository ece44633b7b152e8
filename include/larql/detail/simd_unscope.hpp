// SPDX-License-Identifier: Apache-2.0
//
// Takes back what simd_scope.hpp defines.
#undef LARQL_SIMD_PORTABLE_FUSED
#undef LARQL_SIMD_FUNCTION
#undef LARQL_SIMD_INLINE
#undef LARQL_SIMD_NO_FUSION
#undef LARQL_HAS_BUILTIN
#undef LARQL_UNROLL
