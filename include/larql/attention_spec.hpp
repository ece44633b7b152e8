// SPDX-License-Identifier: Apache-2.0
//
// What one attention block computes, as plain data: everything that a layer, the absorber, the cost model and a
// converter ask. model_config.hpp fills one for each block of a checkpoint; an engine may fill its own.
#ifndef LARQL_ATTENTION_SPEC_HPP
#define LARQL_ATTENTION_SPEC_HPP

#include <larql/attention_form.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/rope_config.hpp>
#include <larql/tensor_role.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace larql {

enum class attention_kind : std::uint8_t {
    mla,         ///< multi-head latent attention
    gqa,         ///< multi-head, grouped-query or multi-query attention
    compressed,  ///< one key/value head with K = V, seen in a window and beyond it as compressed entries
};

constexpr std::string_view to_string(attention_kind kind) noexcept {
    return kind == attention_kind::mla ? "mla" : kind == attention_kind::gqa ? "gqa" : "compressed";
}

enum class norm_kind : std::uint8_t {
    none,
    rms,    ///< x / sqrt(mean(x^2) + eps)
    layer,  ///< (x - mean(x)) / sqrt(var(x) + eps)
};

constexpr std::string_view to_string(norm_kind kind) noexcept {
    return kind == norm_kind::none ? "none" : kind == norm_kind::rms ? "rms" : "layer";
}

/// A norm of query heads, key heads or a latent.
struct norm_spec {
    norm_kind kind = norm_kind::none;
    bool per_head = true;      ///< over the D elements of each head; false: over all heads together (OLMo 2)
    bool own_gains = false;    ///< every head has gains of its own: [H*D] of them for norms per head (Cohere)
    bool has_gain = true;      ///< multiplied by stored gains
    bool has_bias = false;     ///< stored biases are added: the norm of an indexer's keys
    bool after_rope = false;   ///< applied to rotated heads; false: before rotation
    double gain_offset = 0.0;  ///< added to the stored gains (Gemma: 1)
    double eps = 0.0;          ///< above 0 wherever there is a norm; in a model_family's row, 0 is the configuration's
};

/// A factor of the query that grows with its position p: 1 + scale * ln(1 + floor((p + offset) / length)).
/// Or, `logarithmic`, a factor of scale * ln(p + 1) / ln(length) beyond that length, and 1 up to it (Qwen's logn).
/// Or, `per_head`, one of each head's own, s * ln(p + 1) + b, with s and b [H] among the weights (temperature_scale,
/// temperature_bias).
/// @source transformers modeling_mistral4.py get_llama_4_attn_scale (offset 0), modeling_llama4.py (offset 1);
///         llama.cpp deepseek2.cpp, `attention.temperature_*`; modeling_qwen.py, published with the models;
///         modeling_mistral_large4.py MistralLarge4TextSoftmaxScaling (per_head)
struct query_temperature {
    double scale = 0.0;   ///< 0: the query keeps its length
    double length = 0.0;  ///< tokens from one step to the next; of training
    double offset = 0.0;
    bool logarithmic = false;
    bool per_head = false;  ///< the other members are not read

    [[nodiscard]] constexpr bool any() const noexcept { return per_head || scale != 0.0; }
};

/// A function, a sigmoid in most families, of a projection of the block's input that multiplies the heads' outputs
/// before the output projection.
enum class output_gate : std::uint8_t {
    none,
    per_head,     ///< one factor for each head, gate [H, E]
    per_element,  ///< one for each element, gate [H*V, E]
};

constexpr std::string_view to_string(output_gate gate) noexcept {
    return gate == output_gate::none ? "none" : gate == output_gate::per_head ? "per_head" : "per_element";
}

/// The function that makes factors of a gate's projection.
enum class gate_function : std::uint8_t {
    sigmoid,   ///< 1 / (1 + e^-x)
    softplus,  ///< ln(1 + e^x) (Laguna)
};

constexpr std::string_view to_string(gate_function function) noexcept {
    return function == gate_function::sigmoid ? "sigmoid" : "softplus";
}

/// The order of the rows of a fused q, k and v.
enum class qkv_order : std::uint8_t {
    in_turn,      ///< the rows of q, of k, of v (Phi-3)
    by_group,     ///< for each key/value head: its H/G query heads, its key head, its value head (InternLM2, GPT-NeoX)
    in_quarters,  ///< for each quarter of the heads: the rows of q, of v, of k (CodeGen)
};

constexpr std::string_view to_string(qkv_order order) noexcept {
    return order == qkv_order::in_turn ? "in_turn" : order == qkv_order::by_group ? "by_group" : "in_quarters";
}

/// Entries of compressed attention: each stands for `ratio` consecutive tokens, and a token sees those whose tokens are
/// all at or before it, beside its window. Entry w is the sum of the tokens' rows weighted by a softmax over their
/// gates in every channel, normed, and rotated at position w * ratio.
/// @source transformers 5.24 modeling_deepseek_v4.py DeepseekV4HCACompressor, DeepseekV4CSACompressor
struct compression_spec {
    std::size_t ratio = 0;  ///< m, tokens of an entry; 0: no entries, the window alone
    /// Tokens have two rows: the second halves of an entry's own tokens and the first halves of the m tokens before
    /// them make it.
    bool overlapping = false;
    std::size_t index_heads = 0;     ///< nI, heads that choose entries; 0: a token sees all
    std::size_t index_head_dim = 0;  ///< dI
    std::size_t index_top_k = 0;     ///< kI, entries that a token sees at most
    norm_spec norm{};                ///< of entries and of the indexer's keys
};

/// Sparse attention: an indexer scores every key that a token may see, and the token sees the top_k best alone.
///
/// An indexer has Hi query heads of Di elements, made from the normed query latent or the normed input, and one key of
/// Di elements, made from the block's input, normed and cached. The score of a key is the sum over heads of w_h *
/// max(0, q_h . k), with w [Hi] a projection of the input. transformers scales both factors by positive constants,
/// which changes no order. Of keys with the same score the one at the lower position goes first: torch.topk leaves that
/// open.
///
/// @source arXiv 2512.02556 section 2.1; transformers modeling_deepseek_v32.py DeepseekV32Indexer,
///         modeling_glm_moe_dsa.py (blocks that share a selection), modeling_mistral_large4.py (from_input, per_head)
struct indexer_spec {
    std::size_t top_k = 0;     ///< keys that a token sees at most; 0: no indexer, it sees all
    bool shared = false;       ///< no indexer of its own: takes the selection of the last block before that has one
    std::size_t heads = 0;     ///< Hi
    std::size_t head_dim = 0;  ///< Di; of these, as many elements as in the block's heads rotate, with its frequencies
    head_order order = head_order::rope_nope;         ///< of queries and the key
    rope_pairing pairing = rope_pairing::half_split;  ///< of the rotated rows
    norm_spec k_norm{};
    bool from_input = false;  ///< queries are made from the block's input, normed by q_norm, not from a query latent
    norm_spec q_norm{};       ///< of the input, for the queries alone; with `from_input`
    bool per_head = false;    ///< queries have factors of their position, as query_temperature::per_head

    /// Keys that are scored and selected together: pool i is keys [i * pool, (i + 1) * pool), and has one key, in each
    /// element the mean of theirs weighted by the softmax of a projection of their inputs plus learned biases. A token
    /// selects top_k / pool of the pools that it sees whole, and sees the keys behind these, too. 1: no pools.
    std::size_t pool = 1;

    /// Whether tokens up to here see a selection of their keys, not all.
    [[nodiscard]] constexpr bool selects(std::size_t tokens) const noexcept {
        return any() && tokens / pool > top_k / pool;
    }
    /// Elements that a cache holds for each token: of its key, and of what weighs it in its pool.
    [[nodiscard]] constexpr std::size_t cached_size() const noexcept { return pool > 1 ? 2 * head_dim : head_dim; }
    [[nodiscard]] constexpr bool any() const noexcept { return top_k != 0; }
    /// Whether the block makes its own selection.
    [[nodiscard]] constexpr bool own() const noexcept { return top_k != 0 && !shared; }
};

/// What a block in latent form computes from. Gains that stand by themselves multiply activations: those of kv_a_norm
/// are then in what a cache holds, so that caches of folded and of published factors are not each other's.
enum class latent_factors : std::uint8_t {
    folded,  ///< k_b and v_b, and a q_b with the gains of the norms multiplied into them (absorb_latent)
    split,   ///< as published: q_a_norm, q_b, kv_a_norm, and k_b and v_b
    kv_b,    ///< as published: q_a_norm, q_b, kv_a_norm, and kv_b, whose rows are those of k_b (transposed) and v_b
};

/// One attention block. Sizes are in elements; 0 means "has none".
struct attention_spec {
    attention_kind kind = attention_kind::mla;
    attention_form form = attention_form::factored;       ///< of the weights
    latent_factors latent_from = latent_factors::folded;  ///< read if the form is latent
    std::size_t layer = 0;  ///< the decoder layer that the block is in, as the files number it
    std::size_t part = 0;   ///< which of the layer's attentions it is (LongCat has two)

    /// The decoder layer, as `layer` counts them, whose keys and values the block attends to in place of its own
    /// (Gemma 3n): a layer before it. Such a block makes queries alone. It has no k, no v and no norms of these, and no
    /// cache: its calls read that of the other. None: it has its own. Of latent attention it is the latents that are
    /// another's: such a block has no kv_a and no norm of it, but a kv_b of its own.
    /// @source transformers modeling_gemma3n.py, configuration_gemma3n.py kv_sharing_modes; modeling_mistral_large4.py
    std::optional<std::size_t> kv_layer{};

    /// The block's latents are another's, or other blocks attend to them: in every form they are what is cached, and
    /// the factored form makes keys and values of all of them at each call. Latent attention alone.
    bool shares_latents = false;

    /// Elements of the block's input; 0: the model's width. A draft head reads [embedding | hidden state] (EAGLE-3).
    std::size_t input_size = 0;

    /// Sizes, and order and pairing of the rows of the weights. Plain attention has kv_lora_rank 0; its heads are
    /// qk_rope_head_dim rotated and qk_nope_head_dim other elements, in the order that `order` says.
    mla_geometry geometry{};
    rope_config rope{};  ///< of qk_rope_head_dim elements

    double scale = 0.0;              ///< multiplies q.k before everything else, YaRN's m^2 included
    double softcap = 0.0;            ///< scores become softcap * tanh(score / softcap); 0: none
    std::size_t sliding_window = 0;  ///< the token at p sees key j only if p - j < sliding_window; 0: none
    std::size_t chunk = 0;           ///< the token at p sees key j only if p / chunk == j / chunk; 0: none
    double alibi = 0.0;  ///< above 0: scores fall with the distance of the key, by slopes of heads from 2^-alibi up
    double clip = 0.0;   ///< queries, keys and values are limited to [-clip, clip] before rotation; 0: none
    double value_scale = 1.0;   ///< multiplies values (MiMo-V2)
    bool value_is_key = false;  ///< values are the projected keys before their norm and rotation: there is no v
    bool sinks = false;         ///< a learned logit per head takes part in the softmax
    output_gate gate = output_gate::none;
    gate_function gated_by = gate_function::sigmoid;  ///< read if there is a gate
    /// Queries and the gate read [the normed query latent, the latent before its norm] (A.X-K2); the gate not the
    /// input.
    bool raw_query_latent = false;
    query_temperature temperature{};
    compression_spec compression{};  ///< compressed attention alone
    /// The output projection is o_b times o_a, which multiplies each of `output_groups` equal parts of the heads'
    /// outputs with rows of its own; 0: a single projection o.
    std::size_t output_groups = 0;
    std::size_t output_rank = 0;  ///< Ro, rows of o_a for each group
    indexer_spec indexer{};

    norm_spec q_norm{};                                          ///< of the query heads: not latent attention
    norm_spec k_norm{};                                          ///< of the key heads: not latent attention
    norm_spec v_norm{};                                          ///< of the value heads: plain attention, no gains
    norm_spec latent_norm{.kind = norm_kind::rms, .eps = 1e-6};  ///< of both latents; none: factors without norms
    double q_latent_scale = 1.0;                                 ///< multiplies the query latent after its norm
    double kv_latent_scale = 1.0;                                ///< multiplies the latent of keys and values likewise
    norm_spec k_rope_norm{};  ///< of the shared rotated part of the keys, before rotation

    role_set biases{};           ///< tensors that have a bias; it is required, and refused elsewhere
    role_set possible_biases{};  ///< tensors that may have one: the file says so by having it

    qkv_order fused = qkv_order::in_turn;  ///< of the rows of a stored qkv
    role_set transposed{};                 ///< tensors that are stored [in, out] (GPT-2)

    [[nodiscard]] constexpr std::size_t input_width() const noexcept {
        return input_size != 0 ? input_size : geometry.hidden_size;
    }
};

/// Why a block cannot be computed in a form, or "" if it can.
constexpr std::string_view why_not(const attention_spec& spec, attention_form form) noexcept {
    if (form == spec.form) return "";
    if (spec.kind == attention_kind::compressed)
        return "stores one key/value head that all query heads share, with K = V: there is nothing to absorb, and no "
               "form but the factored one";
    if (spec.kind != attention_kind::mla) return "has no latent attention: only the factored form";
    if (spec.form != attention_form::factored) return "is stored in another form; only published factors make others";
    if (spec.shares_latents && form == attention_form::dense)
        return "has blocks that attend to the latents of others, which the dense form neither makes nor caches: it has "
               "the factored and the latent form";
    return "";
}

/// Whether the cache of a block holds latents, and not keys and values of heads.
constexpr bool caches_latents(const attention_spec& spec) noexcept {
    return spec.form == attention_form::latent || spec.shares_latents;
}

/// The first rotated element of a query or key head.
constexpr std::size_t rope_begin(const mla_geometry& g) noexcept {
    return g.order == head_order::rope_nope ? 0 : g.qk_nope_head_dim;
}

}  // namespace larql

#endif
