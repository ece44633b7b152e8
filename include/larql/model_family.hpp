// SPDX-License-Identifier: Apache-2.0
//
// A family of models as a row of data: what its files are called, what its attention does beyond the sizes that its
// configuration states, and what an absent key means. detail/model/families/ holds larql's own rows; a caller adds
// more through `checkpoint::open(path, {.families = rows})`.
#ifndef LARQL_MODEL_FAMILY_HPP
#define LARQL_MODEL_FAMILY_HPP

#include <larql/attention_spec.hpp>
#include <larql/model_key.hpp>
#include <larql/tensor_role.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace larql {

/// The names of a tensor. "{}" stands for a number: the layer's, then the expert's, or that of
/// the attention within the layer. A bias has the same name with
/// ".bias" for ".weight".
struct name_row {
    tensor_role role;
    std::string_view hf;        ///< after the model's prefix ("model." or another); "" if safetensors has none
    std::string_view gguf{};    ///< "" if GGUF has none
    bool beside_model = false;  ///< `hf` stands beside "model.", not in it (lm_head)
};

/// Another name under which a family's config.json states a key.
struct key_alias {
    model_key key;
    std::string_view name;
};

/// The value of a key that a configuration does not state; of a flag, 0 or 1.
struct key_default {
    model_key key{};
    double value = 0.0;
};

/// A key that counts in blocks with a window alone, in place of the one for all blocks.
struct window_key {
    model_key key;
    std::string_view name;  ///< in config.json
    double value = 0.0;     ///< if it is absent; 0: what follows from the others
};

/// A key of config.json that looks like attention and may say one thing alone: what the family always does.
struct fixed_key {
    std::string_view name;
    std::string_view value;  ///< "headwise", "true"
    std::string_view why{};  ///< said to who states another value
};

/// A number or flag of config.json, beside attention, that a GGUF architecture fixes.
struct fixed_number {
    std::string_view name;
    double value;  ///< and what an absent key means
};

/// A key that nobody reads and that may repeat what another states, and say nothing else.
struct repeated_key {
    std::string_view name;
    std::string_view of;
};

/// What a carried value is.
enum class carried_kind : std::uint8_t {
    size,
    number,
    flag,
    of_layers,  ///< a number for each layer, 0 for none; such a list may be absent
    repeated,   ///< a number, which GGUF repeats for each layer; it may be absent
};

/// A value of config.json, beside attention, that GGUF states by a key of its own.
struct carried_value {
    std::string_view name;     ///< where config.json has it, a dot before members of an object
    std::string_view another;  ///< another place, which goes before the first; "" if there is none
    std::string_view gguf;     ///< below the architecture's prefix; what a key row states there must agree
    carried_kind kind = carried_kind::size;
};

/// Where the softmax scale comes from.
enum class scale_rule : std::uint8_t {
    inverse_sqrt_head,    ///< 1 / sqrt(D)
    yarn_mscale,          ///< the same times the square of YaRN's m (attention_mscale)
    stated,               ///< `attention_multiplier`
    inverse_sqrt_stated,  ///< 1 / sqrt(`query_pre_attn_scalar`)
    stated_or_usual,      ///< `attention_multiplier`, or 1 / sqrt(D)
    one,                  ///< 1: the queries are normed
};

/// Which blocks see only a window of keys, of `sliding_window` tokens.
enum class window_rule : std::uint8_t {
    none,         ///< no block: a configuration that states a window is refused
    every_block,  ///< all, if the configuration states a window
    layer_types,  ///< those that `layer_types` calls "sliding_attention"
    period,       ///< block b if b % window_period == window_offset
    from_block,   ///< those of `layer_types`; without it, blocks from `max_window_layers` on
    pattern,      ///< those of `layer_types`; without it, all but each `sliding_window_pattern`th block
    alternating,  ///< those of `layer_types`; without it, every second block below `max_window_layers` from 0 on
    but_period,  ///< those of `layer_types`; without it, all but block 0 and blocks b % window_period == window_offset,
                 ///< or b % `sliding_window_pattern`, if that is read
    chunks,      ///< `layer_types` says "chunked_attention"; without it, of blocks that rotate
    unrotated,   ///< those of `layer_types`; without it, blocks that do not rotate
};

/// Which blocks do not rotate queries and keys.
enum class nope_rule : std::uint8_t {
    none,
    full,               ///< blocks without a window
    full_among_window,  ///< the same, if the configuration states a window
    listed,             ///< `no_rope_layers` has 0 for them; without it, each `no_rope_layer_interval`th block
};

/// Which blocks are sparse, and which of these have an indexer of their own.
enum class indexer_blocks : std::uint8_t {
    none,           ///< no block
    every_block,    ///< all have one
    layer_types,    ///< those that `layer_types` calls "indexed_attention" have one, the others are not sparse
    indexer_types,  ///< all are sparse: "full" blocks have one, "shared" ones take the selection of the last full one
};

/// Sparse attention of a family. Sizes are those of absent keys: the defaults of transformers' configuration class.
struct indexer_rule {
    indexer_blocks blocks = indexer_blocks::none;
    head_order order = head_order::rope_nope;
    rope_pairing pairing = rope_pairing::half_split;  ///< of the published rows
    norm_spec k_norm{};                               ///< eps 0: the configuration's rms_norm_eps
    std::size_t default_top_k = 2048, default_heads = 0, default_head_dim = 128;
    /// Without `indexer_types`, block b is full if max(b + 1 - offset, 0) is a multiple of the period.
    std::size_t default_period = 1, default_offset = 2;
    std::size_t default_pool = 0;  ///< of index_kpool, which is read unless this is 0
    bool from_input = false;       ///< of indexer_spec, and so are the next two
    norm_spec q_norm{};            ///< eps 0: the configuration's rms_norm_eps
    bool per_head = false;
    bool by_switch = false;    ///< `use_dsa`, true if absent: blocks that see all keys are sparse
    bool period_keys = false;  ///< index_topk_freq, index_skip_topk_offset and index_topk_pattern are read
};

/// How GGUF stores the rows of q and k.
enum class gguf_rows : std::uint8_t {
    as_published,
    interleaved,           ///< reordered by llama.cpp's converter so that rotated pairs are neighbours
    halved_with_sections,  ///< as published, but in files that state rope.dimension_sections (its M-RoPE): half_split
};

struct model_config;

/// What longrope does otherwise than transformers' modeling_rope_utils.py.
enum class longrope_rule : std::uint8_t {
    usual,
    short_alone,  ///< the long factors are never used, and the dictionary has a magnitude for short and for long
    by_lengths,   ///< the magnitude goes by max_position_embeddings over the original, whatever factor is stated
    by_growth,    ///< the same, and it is 1 unless the first is the longer
};

/// Which rope dictionaries a family's code reads; others are refused.
enum class dictionary_rule : std::uint8_t {
    any,
    none,                 ///< it reads none
    by_layer_type,        ///< none for all blocks
    linear,               ///< of type "linear"
    longrope,             ///< of type "longrope"
    default_or_longrope,  ///< of these two
};

/// A token with a meaning that GGUF states by a key, and no file of transformers does.
struct token_text {
    std::string_view key;  ///< "eot": tokenizer.ggml.eot_token_id
    std::string_view text;
};

/// What larql writes as a GGUF file of a family's architecture: what llama.cpp's converter writes.
struct gguf_output_rule {
    bool written = false;
    std::string_view why_not{};     ///< said to who asks for it all the same
    bool whole_kv_b = false;        ///< the architecture has no k_b and v_b
    bool keeps_predicting = false;  ///< blocks that predict further tokens are written, as further blocks
    bool experts_or_none = false;   ///< a model without experts says so: its programs ask for the keys
    bool rope_factors = false;      ///< longrope's, as tensors
    std::string_view activation = "silu";
    std::string_view splitting{};               ///< llama.cpp's name of what splits text, where patterns do not tell
    std::span<const token_text> tokens{};       ///< where the vocabulary has them and no file says another
    std::span<const model_key> keys{};          ///< if not empty: the only ones that are stated, beside those of sizes
    std::span<const fixed_number> constants{};  ///< numbers and flags that its programs have instead of a key
    std::span<const key_default> unstated{};    ///< keys that are left out where they have this value
    std::span<const carried_value> carried{};   ///< of layers that larql does not compute
    std::span<const fixed_number> stated{};     ///< GGUF's keys of numbers that config.json's class has as they are
    bool head_dim_as_value_length = false;      ///< value_length is what config.json calls head_dim, whatever that is
    bool sizes_in_both_dialects = false;        ///< files with kv_b have the sizes of heads, too
};

/// One family. Several may have a model_type in common: classes and signs tell them apart. Texts and spans are
/// referred to, not copied: rows of a caller's own, and the arrays that they name, must be static (`constexpr` at
/// namespace scope, or `static constexpr` in a function).
struct model_family {
    std::string_view name;                          ///< larql's own
    std::array<std::string_view, 4> model_types{};  ///< config.json's `model_type`
    std::array<std::string_view, 8> classes{};      ///< transformers' class names, with heads whose trunk is the same
    std::string_view gguf_architecture{};           ///< general.architecture; "" if GGUF has none
    bool params_json = false;                       ///< described by Mistral's params.json, not by a config.json
    std::string_view routing{};                     ///< scoring_func: tells families of one GGUF architecture apart
    std::span<const name_row> names{};

    attention_kind kind = attention_kind::gqa;
    rope_pairing pairing = rope_pairing::half_split;  ///< of the published rows
    bool interleave_key = false;                      ///< `rope_interleave: false` makes it half_split
    scale_rule scale = scale_rule::inverse_sqrt_head;
    norm_spec q_norm{};  ///< eps 0: the configuration's rms_norm_eps
    norm_spec k_norm{};
    norm_spec v_norm{};
    double latent_eps = 1e-6;        ///< 0: the configuration's rms_norm_eps
    bool scaled_latents = false;     ///< normed latents are multiplied by sqrt(hidden_size / rank)
    norm_spec k_rope_norm{};         ///< of the shared rotated part of the keys; eps as above
    bool head_sized_values = false;  ///< an absent v_head_dim is hidden_size / num_attention_heads
    bool block_configs = false;      ///< `block_configs` has groups of its own for each layer, or no attention
    bool dense_by_list = false;      ///< transformers knows layers without experts by `mlp_layer_types` alone
    bool linear_layers = false;      ///< some layers have linear attention, which larql does not compute: no block
    bool cyclic_types = false;       ///< `layer_types` is repeated until all layers have a type
    bool counts_types = false;       ///< an absent `num_hidden_layers` is the number of `layer_types`
    bool head_counts = false;        ///< `num_attention_heads_per_layer` is read
    /// `rope_theta` and `partial_rotary_factors` are lists of layers, `rope_scaling` is of layers that see all keys,
    /// and lists of layers may go on with the blocks that predict further tokens.
    bool rope_lists = false;
    std::size_t attentions_per_layer = 1;
    window_rule windows = window_rule::none;
    std::size_t window_period = 0, window_offset = 0;
    bool window_by_default = true;  ///< `use_sliding_window`, if it is absent
    nope_rule nope = nope_rule::none;
    bool norms_rotated_only = false;  ///< blocks that do not rotate have no norm of heads
    output_gate gate = output_gate::none;
    gate_function gated_by = gate_function::sigmoid;
    std::size_t input_widths = 1;                 ///< the block reads so many times hidden_size
    bool raw_query_latent = false;                ///< queries and the gate read the query latent twice
    output_gate gate_by_key = output_gate::none;  ///< if `mla_use_output_gate` is true
    qkv_order fused = qkv_order::in_turn;         ///< of safetensors' qkv; that of GGUF is in turn
    role_set transposed{};                        ///< tensors that safetensors have as [in, out]
    bool sinks = false;
    bool window_sinks = false;      ///< blocks with a window have them, the others have not
    std::size_t window_groups = 1;  ///< blocks with a window have so many times the key/value heads, unless stated
    indexer_rule indexer{};
    double alibi = 0.0;                  ///< of attention_spec; 0: none
    bool softcap = false;                ///< `attn_logit_softcapping` is read
    bool temperature = false;            ///< `llama_4_scaling_beta` is read
    bool temperature_per_head = false;   ///< each head's own scale and bias are tensors of the block
    bool temperature_unrotated = false;  ///< `attn_scale` and `floor_scale` are, for blocks that do not rotate
    bool partial_rotary = false;         ///< `partial_rotary_factor` is read
    bool dynamic_alpha = false;          ///< `alpha` of dynamic scaling is read
    longrope_rule longrope = longrope_rule::usual;
    dictionary_rule dictionaries = dictionary_rule::any;
    bool null_rope = false;              ///< a base, or the dictionary of a layer type, that is null: no rotation
    bool learned_frequencies = false;    ///< what multiplies them is a tensor of the model
    bool backwards = false;              ///< heads turn by the negative of their angles
    bool share_of_proportional = false;  ///< `partial_rotary_factor` is read for that rope type alone
    bool rotary_dim_unread = false;      ///< `rotary_dim` must be the default share of a head
    role_set biases{};                   ///< tensors that always have a bias
    role_set biases_by_key{};            ///< tensors that have one if `attention_bias` is true
    role_set norm_biases{};              ///< of q_norm and k_norm, those that have one, if there is a norm

    std::array<model_key, 6> reads{};  ///< keys beyond those that every family, or one with such rules, reads
    bool only_longrope = false;        ///< a rope type "yarn" means longrope (Phi-3)
    bool rope_required = false;        ///< without a rope dictionary transformers assumes a scaling: refused

    /// Values of absent keys: the defaults of transformers' configuration class. None: an absent key is an error.
    std::optional<double> default_rope_theta{};
    std::optional<double> default_rms_norm_eps{};
    std::optional<double> default_compress_rope_theta{};
    /// The dictionary that the class makes where none is stated; without a type there is none.
    std::string_view default_rope_type{};
    std::span<const key_default> default_rope{};
    std::size_t default_head_dim = 0;                  ///< 0: hidden_size / num_attention_heads, as in most
    std::optional<std::size_t> default_q_lora_rank{};  ///< where no tensors settle it; 0: a single q_proj
    std::optional<std::size_t> default_sliding_window{};
    std::optional<std::size_t> default_max_window_layers{};
    std::optional<double> default_local_theta{};  ///< blocks with a window rotate unscaled, with `rope_local_base_freq`
    bool dictionary_for_windows = false;          ///< a rope dictionary for all blocks is for those with a window, too
    std::array<key_default, 6> defaults{};        ///< of other keys: those that a test lists

    gguf_rows stored = gguf_rows::as_published;
    double gguf_log_multiplier = 0.0;  ///< GGUF's yarn_log_multiplier is so many times mscale_all_dim; 0: not read
    bool gguf_temperature = false;     ///< GGUF's `attention.temperature_*` are read
    /// Of these GGUF has the scale alone: the length is the original context, and without a scale there is none.
    bool gguf_temperature_by_original = false;
    /// GGUF has no word for norms of heads without gains. So many experts has the published model that norms, and the
    /// one that does not; any other number is refused.
    std::size_t gguf_normed_experts = 0, gguf_unnormed_experts = 0;
    std::size_t gguf_vocabulary = 0;  ///< not 0: files with so many tokens are this row's, and others are not
    /// GGUF does not say which blocks have a window: all but block 0 and those whose number this divides.
    std::size_t gguf_window_period = 0;
    bool gguf_one_base = false;    ///< without rope.freq_base_swa windows rotate as other blocks, not by class_defaults
    double gguf_full_share = 1.0;  ///< blocks that see all keys rotate this share of the elements that GGUF states
    /// Keys that GGUF has not, and llama.cpp's programs have as constants.
    std::span<const key_default> gguf_assumed{};
    /// GGUF states no `query_pre_attn_scalar`, and llama.cpp goes by the number of blocks. So many have the published
    /// models whose scale is 1 / sqrt(D), and the one whose scale is 1 / sqrt(E/H); any other number is refused.
    std::array<std::size_t, 4> gguf_head_blocks{};
    std::size_t gguf_wide_blocks = 0;
    bool gguf_untruncated = false;  ///< GGUF has no word for YaRN's `truncate`, which is false in every model
    std::string_view gguf_loses{};  ///< what the GGUF architecture has no place for
    gguf_output_rule gguf_output{};

    /// Not empty: blocks with a window have sizes of their own, stated by these keys, or else every block by an entry
    /// of `per_layer_config`, which then says all.
    std::span<const window_key> window_keys{};

    std::span<const key_alias> aliases{};            ///< names beyond those of the key rows
    std::span<const std::string_view> inert_keys{};  ///< keys that look like attention and are not: names of
                                                     ///< config.json, and of GGUF below the architecture's prefix

    std::span<const fixed_key> fixed_keys{};
    std::span<const repeated_key> repeated_keys{};
    fixed_key never{};  ///< a key and the value that no model of this row has
    fixed_key
        sign{};  ///< a key that models of this row state, with this value or with any (""), and no others of the type

    std::string_view refused{};  ///< not empty: such models are recognised and refused, for this reason

    /// Last resort, for what no column can say; called for each block.
    void (*adjust)(const model_config&, std::size_t block, attention_spec&) = nullptr;

    /// Whether `reads` has a key.
    [[nodiscard]] constexpr bool lists(model_key key) const noexcept {
        for (const model_key listed : reads)
            if (listed == key) return true;
        return false;
    }
    /// The value of an absent key, if `defaults` has one.
    [[nodiscard]] constexpr std::optional<double> default_of(model_key key) const noexcept {
        for (const key_default& row : defaults)
            if (row.key == key && key != model_key{}) return row.value;
        return std::nullopt;
    }
};

}  // namespace larql

#endif
