// SPDX-License-Identifier: Apache-2.0
//
// What a tensor of a model is for, whatever it is called in a file.
#ifndef LARQL_TENSOR_ROLE_HPP
#define LARQL_TENSOR_ROLE_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string_view>

namespace larql {

/// The purpose of a tensor. The first group belongs to an attention block; detail/model/roles.hpp has their shapes.
enum class tensor_role : std::uint8_t {
    q,                    ///< [H*D, E] query projection
    q_a,                  ///< [Rq, E] query latent
    q_a_norm,             ///< [Rq] gains of the query latent's norm
    q_b,                  ///< [H*D, Rq]
    q_norm,               ///< [D] gains of the norm of each query head, or [H*D]; its bias likewise
    kv_a,                 ///< [R + P, E] latent of keys and values, then the shared rotated rows
    kv_a_latent,          ///< [R, E] the latent rows alone: larql's dense form
    kv_a_norm,            ///< [R] gains of the latent's norm
    k_rope_norm,          ///< [P] gains of the norm of the shared rotated rows
    kv_b,                 ///< [G*(N + V), R] per head N key rows, then V value rows
    k_b,                  ///< [G, R, N] the key rows of kv_b, transposed per head
    v_b,                  ///< [G, V, R] the value rows of kv_b
    k,                    ///< [G*D, E] key projection
    k_norm,               ///< [D] gains of the norm of each key head, or [G*D]
    v,                    ///< [G*V, E] value projection
    qkv,                  ///< [(H + G)*D + G*V, E] the three projections, fused in an order that the spec names
    q_gate,               ///< [2*H*D, E] queries and gate in one: per head D query rows, then D gate rows
    q_gate_b,             ///< [H*(D + V), 2*Rq] q_b, q_b_raw and gate in one: per head D query rows, then V gate rows
    q_b_raw,              ///< [H*D, Rq] what queries take of the query latent before its norm
    gate,                 ///< [H, E] or [H*V, E] gate of the heads' outputs
    sinks,                ///< [H] one logit per head that takes part in the softmax
    indexer_q_b,          ///< [Hi*Di, Rq] queries of the indexer, from the normed query latent, or [Hi*Di, E]
    indexer_k,            ///< [Di, E] the indexer's key
    indexer_k_norm,       ///< [Di] gains of the norm of the indexer's key
    indexer_k_norm_bias,  ///< [Di] its biases
    indexer_weights,      ///< [Hi, E] weights of the indexer's heads
    indexer_pool_gate,    ///< [Di, E] weighs keys within their pool
    indexer_pool_bias,    ///< [pool, Di] added to these weights, by place within the pool
    o,                    ///< [E, H*V] output projection
    o_a,                  ///< [Go*Ro, H*V / Go] first factor of a grouped output projection
    o_b,                  ///< [E, Go*Ro] its second factor

    // Factors of queries that follow positions, and an indexer whose queries are made from the input.
    temperature_scale,          ///< [H] of each head, what multiplies the logarithm of the position in that factor
    temperature_bias,           ///< [H] what is added to it
    indexer_q_norm,             ///< [E] gains of the norm of the input that the indexer's queries are made from
    indexer_q_norm_bias,        ///< [E] its biases
    indexer_temperature_scale,  ///< [Hi] as temperature_scale, of the indexer's heads
    indexer_temperature_bias,   ///< [Hi]

    // Compressed attention: m tokens an entry; c is 2 where entries overlap, else 1.
    compressor_kv,                ///< [c*D, E] rows that entries are made of
    compressor_gate,              ///< [c*D, E] their gates
    compressor_position,          ///< [m, c*D] added to the gates, by the token's place in its entry
    compressor_norm,              ///< [D] gains of the entries' norm
    indexer_compressor_kv,        ///< [c*dI, E] as compressor_kv, for the indexer's keys
    indexer_compressor_gate,      ///< [c*dI, E]
    indexer_compressor_position,  ///< [m, c*dI]
    indexer_compressor_norm,      ///< [dI]
    inert,                        ///< stored within attention and without influence on it

    embedding,
    output_norm,
    output,
    input_norm,  ///< of the hidden states that attention reads
    ffn_norm,
    ffn_gate,
    ffn_up,
    ffn_down,
    router,
    router_bias,
    expert_gate,
    expert_up,
    expert_down,
    expert_gate_up,  ///< of all experts of a layer, each gate before its up
    shared_expert_gate,
    shared_expert_up,
    shared_expert_down,

    // What a block that predicts further tokens has beside those of a layer.
    predict_embedding,
    predict_embedding_norm,
    predict_hidden_norm,
    predict_projection,  ///< [E, 2*E] the normed embedding and the normed hidden state become one
    predict_output_norm,
    predict_output,

    // Hyper-connections: how a layer's parts read and write its m streams of hidden states; c is (2 + m)*m.
    hyper_attention_mix,    ///< [c, m*E] of attention
    hyper_attention_bias,   ///< [c]
    hyper_attention_scale,  ///< [3]
    hyper_ffn_mix,          ///< the same of the feed-forward part
    hyper_ffn_bias,
    hyper_ffn_scale,

    // What a layer with linear attention (Kimi Delta Attention; Hl heads of Dl) has beside q, k, v and o.
    linear_conv_q,      ///< [Hl*Dl, 1, kernel] short convolution of the queries
    linear_conv_k,      ///< the same of the keys
    linear_conv_v,      ///< the same of the values
    linear_beta,        ///< [Hl, E] how much of a value is written
    linear_decay_a,     ///< [Dl, E] first factor of what is forgotten, or [Hl*Dl, E] the whole of it
    linear_decay_b,     ///< [Hl*Dl, Dl] its second factor
    linear_decay_bias,  ///< [Hl*Dl] its biases
    linear_decay,       ///< [1, 1, Hl, 1] or [Hl], logarithm of the rate of forgetting; in GGUF minus the rate itself
    linear_rate,        ///< [Hl] the same logarithm; in GGUF [Hl, 1] the rate itself
    linear_gate_a,      ///< [Dl, E] first factor of the output's gate, or [Hl*Dl, E] the whole of it
    linear_gate_b,      ///< [Hl*Dl, Dl] its second factor
    linear_norm,        ///< [Dl] gains of the output's norm

    rope_divisors,         ///< one divisor for each frequency
    rope_long_factors,     ///< longrope's divisors beyond the original context
    rope_short_factors,    ///< and up to it
    rope_log_multipliers,  ///< [P/2] logarithms of what multiplies each frequency
};

inline constexpr std::size_t tensor_role_count = static_cast<std::size_t>(tensor_role::rope_log_multipliers) + 1;

/// The role's name, as in the enumeration.
constexpr std::string_view to_string(tensor_role role) noexcept {
    constexpr std::string_view names[] = {
        "q",
        "q_a",
        "q_a_norm",
        "q_b",
        "q_norm",
        "kv_a",
        "kv_a_latent",
        "kv_a_norm",
        "k_rope_norm",
        "kv_b",
        "k_b",
        "v_b",
        "k",
        "k_norm",
        "v",
        "qkv",
        "q_gate",
        "q_gate_b",
        "q_b_raw",
        "gate",
        "sinks",
        "indexer_q_b",
        "indexer_k",
        "indexer_k_norm",
        "indexer_k_norm_bias",
        "indexer_weights",
        "indexer_pool_gate",
        "indexer_pool_bias",
        "o",
        "o_a",
        "o_b",
        "temperature_scale",
        "temperature_bias",
        "indexer_q_norm",
        "indexer_q_norm_bias",
        "indexer_temperature_scale",
        "indexer_temperature_bias",
        "compressor_kv",
        "compressor_gate",
        "compressor_position",
        "compressor_norm",
        "indexer_compressor_kv",
        "indexer_compressor_gate",
        "indexer_compressor_position",
        "indexer_compressor_norm",
        "inert",
        "embedding",
        "output_norm",
        "output",
        "input_norm",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
        "router",
        "router_bias",
        "expert_gate",
        "expert_up",
        "expert_down",
        "expert_gate_up",
        "shared_expert_gate",
        "shared_expert_up",
        "shared_expert_down",
        "predict_embedding",
        "predict_embedding_norm",
        "predict_hidden_norm",
        "predict_projection",
        "predict_output_norm",
        "predict_output",
        "hyper_attention_mix",
        "hyper_attention_bias",
        "hyper_attention_scale",
        "hyper_ffn_mix",
        "hyper_ffn_bias",
        "hyper_ffn_scale",
        "linear_conv_q",
        "linear_conv_k",
        "linear_conv_v",
        "linear_beta",
        "linear_decay_a",
        "linear_decay_b",
        "linear_decay_bias",
        "linear_decay",
        "linear_rate",
        "linear_gate_a",
        "linear_gate_b",
        "linear_norm",
        "rope_divisors",
        "rope_long_factors",
        "rope_short_factors",
        "rope_log_multipliers",
    };
    static_assert(std::size(names) == tensor_role_count, "one name per role");
    return names[static_cast<std::size_t>(role)];
}

/// Whether a role belongs to an attention block.
constexpr bool is_attention_role(tensor_role role) noexcept { return role <= tensor_role::inert; }

/// A set of roles.
class role_set {
public:
    constexpr role_set() = default;
    constexpr role_set(std::initializer_list<tensor_role> roles) {
        for (const tensor_role role : roles) insert(role);
    }
    constexpr void insert(tensor_role role) noexcept { m_bits[word(role)] |= bit(role); }
    constexpr void erase(tensor_role role) noexcept { m_bits[word(role)] &= ~bit(role); }
    [[nodiscard]] constexpr bool contains(tensor_role role) const noexcept {
        return (m_bits[word(role)] & bit(role)) != 0;
    }
    [[nodiscard]] constexpr bool empty() const noexcept { return *this == role_set(); }
    friend constexpr role_set operator|(role_set a, const role_set& b) noexcept {
        for (std::size_t i = 0; i < a.m_bits.size(); ++i) a.m_bits[i] |= b.m_bits[i];
        return a;
    }
    friend constexpr bool operator==(const role_set&, const role_set&) = default;

private:
    static constexpr std::size_t word(tensor_role role) noexcept { return static_cast<std::size_t>(role) / 64; }
    static constexpr std::uint64_t bit(tensor_role role) noexcept {
        return std::uint64_t{1} << (static_cast<unsigned>(role) % 64);
    }
    std::array<std::uint64_t, (tensor_role_count + 63) / 64> m_bits{};
};

}  // namespace larql

#endif
