// SPDX-License-Identifier: Apache-2.0
#include <larql/gqa_attention.hpp>
#include <larql/mla_absorb.hpp>

double attention_of_equal_scores();

/// Zero queries weigh all keys alike, so that the result is the mean of the values 1 to 4. They come in xtensor's own
/// default layout, which a project may have changed.
double attention_of_equal_scores() {
    const larql::tensor<float, 3> q({1, 2, 3}, 0.0F);
    const larql::tensor<float, 3> k({4, 1, 3}, 1.0F);
    xt::xtensor<float, 3> v({4, 1, 3});
    for (unsigned s = 0; s < 4; ++s)
        for (unsigned i = 0; i < 3; ++i) v(s, 0, i) = static_cast<float>(s + 1) * static_cast<float>(i);
    return static_cast<double>(larql::gqa_attention(q, k, v)(0, 1, 1));
}
