// SPDX-License-Identifier: Apache-2.0
// A tensor of blocks has no size that counts numbers.
// expect: rows of larql::q8_0_block are given as a rows_view
#include <larql/gqa_attention.hpp>

larql::tensor<float, 3> attend(const larql::tensor<float, 3>& q, const larql::rows_view<const larql::q8_0_block>& k,
                               const larql::tensor<larql::q8_0_block, 3>& blocks);
larql::tensor<float, 3> attend(const larql::tensor<float, 3>& q, const larql::rows_view<const larql::q8_0_block>& k,
                               const larql::tensor<larql::q8_0_block, 3>& blocks) {
#ifdef LARQL_FORBIDDEN
    return larql::gqa_attention(q, k, blocks);
#else
    (void)blocks;
    return larql::gqa_attention(q, k, k);
#endif
}
