// SPDX-License-Identifier: Apache-2.0
//
// A block of a checkpoint in every form that it has, with and without a cache.
#ifndef LARQL_TESTS_FUZZ_CHECKED_FORMS_HPP
#define LARQL_TESTS_FUZZ_CHECKED_FORMS_HPP

#include <larql/attention_layer.hpp>
#include <larql/checkpoint.hpp>
#include <larql/dtype.hpp>
#include <larql/kv_cache.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace larql::testing {

/// Hidden states of about 1, the same for the same sizes.
inline tensor<float, 2> hidden_states(std::size_t tokens, std::size_t width) {
    auto x = tensor<float, 2>::from_shape({tokens, width});
    std::uint32_t state = 12345;
    for (std::size_t i = 0; i < x.size(); ++i) {
        state = state * 1664525U + 1013904223U;
        x.data()[i] = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
    }
    return x;
}

inline tensor<float, 2> rows_of(const tensor<float, 2>& x, std::size_t begin, std::size_t end) {
    auto out = tensor<float, 2>::from_shape({end - begin, x.shape(1)});
    if (out.size() != 0) std::copy_n(x.data() + begin * x.shape(1), out.size(), out.data());
    return out;
}

inline bool is_finite(const tensor<float, 2>& x) {
    return std::all_of(x.data(), x.data() + x.size(), [](float v) { return std::isfinite(v); });
}

/// Two ways to the same numbers; nothing is asked where one of them left float's range, as a weight may be infinite.
inline void require_close(const tensor<float, 2>& a, const tensor<float, 2>& b, const std::string& what) {
    require(a.shape() == b.shape(), what + ": other shapes");
    if (!is_finite(a) || !is_finite(b)) return;
    float magnitude = 0.0F, difference = 0.0F;
    for (std::size_t i = 0; i < a.size(); ++i) {
        magnitude = std::max(magnitude, std::abs(a.data()[i]));
        difference = std::max(difference, std::abs(a.data()[i] - b.data()[i]));
    }
    require(difference <= 1e-2F * magnitude || magnitude < 1e-30F,
            what + ": differs by " + std::to_string(difference) + " of " + std::to_string(magnitude));
}

/// Whether rounding stays small: a softmax of large logits turns a last bit into another answer, and so does a
/// selection of keys with nearly equal scores.
inline bool is_steady(const attention_spec& spec) {
    return std::abs(spec.scale) < 4.0 && spec.indexer.top_k == 0 && spec.compression.index_heads == 0 &&
           !depends_on_length(spec.rope);
}

/// The first tokens, then the others, through a cache; a cache of another layer is refused and changes nothing.
template <class Storage>
void check_cache(byte_source& from, const attention_layer<float>& layer, const tensor<float, 2>& x,
                 const tensor<float, 2>& whole) {
    const std::size_t tokens = x.shape(0), first = from.size(0, tokens);
    auto cache = layer.make_cache<Storage>(tokens);
    const auto head = layer.forward(rows_of(x, 0, first), cache);
    require(cache.size() == first, "a cache of another length");
    auto last = layer.forward(rows_of(x, first, tokens), cache);
    require(cache.size() == tokens, "a cache of another length");
    if (std::is_same_v<Storage, float> && is_steady(layer.spec()))
        require_close(last.out, rows_of(whole, first, tokens), "with a cache");
    if (tokens == 0) return;
    require(!attempt([&] { (void)layer.forward(rows_of(x, 0, 1), cache); }), "a full cache takes a token");
    auto other = from.one_in(2) ? kv_cache<Storage>({.capacity = 9,
                                                     .kv_heads = from.size(1, 5),
                                                     .key_size = from.size(1, 40),
                                                     .value_size = from.size(1, 40)})
                                : kv_cache<Storage>::latent(9, from.size(1, 40), from.size(0, 20));
    attempt([&] { (void)layer.forward(rows_of(x, 0, 1), other); });
}

/// One block; sizes beyond what a test should compute are passed over.
inline void check_forms(byte_source& from, const checkpoint& model) {
    if (model.format().empty() || model.config().hidden_size > 4096) return;
    const std::size_t block = from.size(0, model.attention_blocks() - 1);
    const attention_spec& spec = model.spec(block);
    const std::size_t tokens = from.size(0, 6);
    const tensor<float, 2> x = hidden_states(tokens, spec.input_width());
    tensor<float, 2> stored;
    for (const attention_form form : {attention_form::factored, attention_form::latent, attention_form::dense})
        attempt([&] {
            const auto layer = model.attention(block, form, {.storage = weight_storage::copied});
            const auto whole = layer.forward(x);
            require(whole.out.shape(0) == tokens && whole.out.shape(1) == spec.geometry.hidden_size, "another shape");
            if (stored.size() == 0) stored = whole.out;
            if (is_steady(spec)) require_close(whole.out, stored, "in " + std::string(to_string(form)) + " form");
            if (from.one_in(3)) return check_cache<f16>(from, layer, x, whole.out);
            if (from.one_in(3)) return check_cache<bf16>(from, layer, x, whole.out);
            check_cache<float>(from, layer, x, whole.out);
        });
}

}  // namespace larql::testing

#endif
