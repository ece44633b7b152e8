// SPDX-License-Identifier: Apache-2.0
// Attention says which element types it takes.
// expect: larql: q, k and v must hold float, double, larql::bf16, larql::f16, larql::f8_e4m3
#include <larql/gqa_attention.hpp>

#ifdef LARQL_FORBIDDEN
using stored = int;
#else
using stored = larql::bf16;
#endif

larql::tensor<float, 3> attend(const larql::tensor<float, 3>& q, const larql::tensor<stored, 3>& kv);
larql::tensor<float, 3> attend(const larql::tensor<float, 3>& q, const larql::tensor<stored, 3>& kv) {
    return larql::gqa_attention(q, kv, kv);
}
