// SPDX-License-Identifier: Apache-2.0
//
// The bodies of checkpoint.hpp, which includes this file.
#ifndef LARQL_DETAIL_CHECKPOINT_STATE_HPP
#define LARQL_DETAIL_CHECKPOINT_STATE_HPP

#include <larql/checkpoint.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql {

namespace detail {

/// What `over` states of rope takes the place of every statement of the same in `config`: a base beside the
/// dictionaries that of one within them, a dictionary one of either name, but not the base or the context that it does
/// not state.
inline void lay_over_rope(nlohmann::json& config, const nlohmann::json& over) {
    constexpr const char* dictionaries[] = {"rope_scaling", "rope_parameters"};
    constexpr const char* beside[] = {"rope_theta", "partial_rotary_factor", "original_max_position_embeddings"};
    const nlohmann::json* stated = nullptr;
    for (const char* name : dictionaries)
        if (over.contains(name)) stated = &over.at(name);
    for (const char* key : beside)
        for (const char* name : dictionaries) {
            if (!config.contains(name) || !config[name].is_object() || !config[name].contains(key)) continue;
            // Moved beside the dictionaries, where it holds until something else is stated.
            if (!over.contains(key) && stated != nullptr && !config.contains(key)) config[key] = config[name][key];
            if (over.contains(key)) config[name].erase(key);
        }
    if (stated == nullptr) return;
    for (const char* name : dictionaries) config.erase(name);
    if (!stated->is_object()) return;
    for (const char* key : beside)
        if (stated->contains(key)) config.erase(key);
}

/// `config` with what `over` states in its place. Objects that hold a language model's configuration are merged, others
/// (rope dictionaries) replaced as a whole; a rope dictionary replaces one of either name.
inline void lay_over(nlohmann::json& config, const nlohmann::json& over) {
    if (!over.is_object()) fail(errc::wrong_type, "expected a JSON object, got " + shown(over), {.subject = "config"});
    if (!config.is_object()) config = nlohmann::json::object();
    nlohmann::json* target = &config;
    const text_part text = find_text_part(config);
    if (!text.path.empty() && find_text_part(over).path.empty())  // stated for the language model without its wrapper
        target = const_cast<nlohmann::json*>(text.object);
    lay_over_rope(*target, over);
    for (const auto& [key, value] : over.items()) {
        const auto there = target->find(key);
        const bool nested = std::ranges::find(text_objects, std::string_view(key)) != std::end(text_objects);
        if (nested && value.is_object() && there != target->end() && there->is_object())
            lay_over(*there, value);
        else
            (*target)[key] = value;
    }
}

}  // namespace detail

inline void checkpoint::state::read(const open_options& options) {
    try {
        if (files.gguf) reader.emplace(files.gguf);
        if (files.gguf && !files.config_text) {
            world = detail::naming::gguf;
            read_gguf(options);
        } else {
            read_json(options);
        }
        if (reader) place_tensors(options);
    } catch (const error&) {
        if (files.safetensors && !reader) reader.emplace(files.safetensors);
        config.reset();
        problem = std::current_exception();
    }
}

inline void checkpoint::state::read_gguf(const open_options& options) {
    const config_options how{options.families, options.unknown};
    detail::read_config read =
        detail::read_gguf_config(*files.gguf, how, options.config.is_null() ? nullptr : &options.config);
    values = read.values;
    family = read.values.family;
    config = detail::finish_gguf_config(std::move(read), *files.gguf, how);
    if (!options.config.is_null()) config->container_loses.clear();
    find_tensors(world);
}

/// A config.json, or what larql wrote of one into a GGUF file of its own.
inline void checkpoint::state::read_json(const open_options& options) {
    const config_options how{options.families, options.unknown};
    const error_where where{.file = files.config_path};
    if (files.config_text) config_json = parse_config_json(*files.config_text, where);
    if (!options.config.is_null()) detail::lay_over(config_json, options.config);
    if (files.safetensors) reader.emplace(files.safetensors, quantization_config::find_in(config_json, where));
    if (config_json.is_null())
        detail::fail(errc::missing_key, "no config.json beside the tensors says what the model is",
                     {.file = files.path});
    detail::read_config read = detail::read_json_config(config_json, where, how);
    family = read.values.family;
    if (reader) find_tensors(world);
    if (reader && family->kind == attention_kind::mla && !read.values.top.stated(model_key::q_lora_rank)) {
        const auto rank = tensors.query_rank([&](const std::string& name) { return reader->at(name).rows(); });
        if (rank) read.values.top.set(model_key::q_lora_rank, *rank, "q_lora_rank");
    }
    values = read.values;
    config = detail::finish_json_config(std::move(read), where, how);
}

inline void checkpoint::state::find_tensors(detail::naming names) {
    tensors = detail::model_tensors(*family, names, reader->names());
}

/// Settles where the model's tensors lie, and refuses those of attention that nothing reads.
inline void checkpoint::state::place_tensors(const open_options& options) {
    tensors.choose_prefix(*config, files.path);
    for (std::size_t block = config->block_begin; block < config->block_end; ++block) {
        attention_spec& block_spec = config->blocks[block];
        for (const detail::role_row& row : detail::attention_roles)
            if (block_spec.possible_biases.contains(row.role) &&
                tensors.find(detail::identity_of(block_spec, row.role, true)) != nullptr)
                block_spec.biases.insert(row.role);
        config->attention_bias = config->attention_bias || !block_spec.biases.empty();
    }
    const std::vector<std::string> unclaimed = tensors.unclaimed(*config);
    if (options.unknown == unknown_policy::ignore) {
        config->warnings.insert(config->warnings.end(), unclaimed.begin(), unclaimed.end());
        return;
    }
    if (unclaimed.empty()) return;
    constexpr std::size_t listed = 20;
    std::string all;
    for (std::size_t i = 0; i < std::min(unclaimed.size(), listed); ++i) all += (i == 0 ? "" : "; ") + unclaimed[i];
    if (unclaimed.size() > listed) all += "; and " + std::to_string(unclaimed.size() - listed) + " more";
    detail::fail(errc::not_understood,
                 all +
                     ". Tensors within attention that nothing reads change its results: pass over them with "
                     "--unknown ignore (checkpoint::open's `unknown`) if you know better",
                 {.file = files.path, .subject = "tensors"});
}

inline const attention_spec& checkpoint::state::spec(std::size_t block) const {
    const model_config& model = require_config();
    if (block >= model.blocks.size())
        detail::fail(
            errc::bad_value,
            "expected a block from 0 to " + std::to_string(model.blocks.size() - 1) + ", got " + std::to_string(block),
            {.file = files.path, .subject = "layer"});
    return model.blocks[block];
}

inline std::string_view checkpoint::dialect(std::size_t block) const {
    const auto has = [&](tensor_role role) {
        return m_state->tensors.find(detail::identity_of(spec(block), role)) != nullptr;
    };
    const bool whole = has(tensor_role::kv_b);
    const bool split = has(tensor_role::k_b) && has(tensor_role::v_b);
    return whole && split ? "all" : whole ? "kv_b" : split ? "k_b+v_b" : "";
}

inline std::string_view checkpoint::dialect() const {
    const model_config* model = find_config();
    if (model == nullptr || !m_state->reader || model->attention != attention_kind::mla) return "";
    for (std::size_t block = 0; block < model->blocks.size(); ++block)
        if (const std::string_view found = dialect(block); !found.empty()) return found;
    return "";
}

namespace detail {

/// The rows of a weight that is stored [in, out]: its columns. It is read as a whole, once.
inline matrix_input<float> transposed_rows(const weight& found, std::size_t rows, std::size_t cols) {
    auto turned = tensor<float, 2>::from_shape({rows, cols});
    std::vector<float> stored(rows);
    for (std::size_t c = 0; c < cols; ++c) {
        found.read_rows(c, c + 1, stored.data(), rows);
        for (std::size_t r = 0; r < rows; ++r) turned.data()[r * cols + c] = stored[r];
    }
    return matrix_input<float>(std::move(turned));
}

/// The rows of `whole` from `begin` to `end` of each of `runs` runs of equal length.
inline matrix_input<float> rows_of_runs(matrix_input<float> whole, std::size_t begin, std::size_t end,
                                        std::size_t runs) {
    if (runs == 1) return whole.row_range(begin, end);
    const std::size_t length = whole.rows() / runs, taken = end - begin, cols = whole.cols();
    return matrix_input<float>(taken * runs, cols,
                               [whole = std::move(whole), length, taken, begin](std::size_t first, std::size_t last,
                                                                                float* out, std::size_t stride) {
                                   for (std::size_t i = first; i < last; ++i, out += stride) {
                                       const std::size_t row = i / taken * length + begin + i % taken;
                                       whole.read_rows(row, row + 1, out, stride);
                                   }
                               });
}

/// So many columns from `first` on; 0: all.
inline matrix_input<float> column_range(matrix_input<float> whole, std::size_t first, std::size_t count) {
    if (count == 0) return whole;
    const std::size_t rows = whole.rows(), cols = whole.cols();
    return matrix_input<float>(rows, count,
                               [whole = std::move(whole), first, count, cols](std::size_t begin, std::size_t end,
                                                                              float* out, std::size_t stride) {
                                   std::vector<float> row(cols);
                                   for (std::size_t r = begin; r < end; ++r, out += stride) {
                                       whole.read_rows(r, r + 1, row.data(), cols);
                                       std::copy_n(row.data() + first, count, out);
                                   }
                               });
}

}  // namespace detail

/// Rows of a stored matrix, which is held against the shape that the spec implies.
inline matrix_input<float> checkpoint::state::part(const stored_rows& rows, const attention_spec& spec,
                                                   held_weights& held) const {
    const weight& found = held.at(weights(), rows.name);
    const detail::role_row& row = *detail::find_role(rows.role);
    const bool transposed = spec.transposed.contains(rows.role);
    std::size_t want_rows = detail::size_of(row.rows, spec), want_cols = detail::size_of(row.cols, spec);
    const std::size_t implied_rows = want_rows, implied_cols = want_cols;
    if (transposed) std::swap(want_rows, want_cols);
    if (found.rows() != want_rows || found.columns() != want_cols)
        detail::fail(errc::shape_mismatch,
                     "the configuration implies [" + std::to_string(want_rows) + ", " + std::to_string(want_cols) +
                         "], the tensor has " + detail::shape_text(found.shape()),
                     {.file = files.path, .subject = rows.name});
    const matrix_input<float> whole =
        transposed ? detail::transposed_rows(found, implied_rows, implied_cols) : matrix_of(found);
    return detail::column_range(detail::rows_of_runs(whole, rows.begin, rows.end, rows.runs), rows.first_column,
                                rows.columns);
}

/// The elements of a stored vector from `begin` to `end` of each of `runs` runs of equal length. Gains that every head
/// has of its own may have a row for each head.
inline vector_input<float> checkpoint::state::vector(const std::string& name, std::size_t length, std::size_t begin,
                                                     std::size_t end, std::size_t runs, std::size_t rows) const {
    const weight found = weights().at(name);
    const bool by_rows = found.shape().size() == 2 && rows > 1 && found.rows() == rows;
    if ((found.shape().size() != 1 && !by_rows) || found.columns() * found.rows() != length)
        detail::fail(errc::shape_mismatch,
                     "the configuration implies [" + std::to_string(length) + "], the tensor has " +
                         detail::shape_text(found.shape()),
                     {.file = files.path, .subject = name});
    std::vector<float> elements(length), chosen;
    found.read_rows(0, found.rows(), elements.data(), static_cast<std::size_t>(found.columns()));
    for (std::size_t run = 0; run < runs; ++run)
        for (std::size_t i = begin; i < end; ++i) chosen.push_back(elements[run * (length / runs) + i]);
    return chosen;
}

/// The bias of a projection: stored by itself, or as a part of a fused one.
inline vector_input<float> checkpoint::state::bias(const detail::role_row& row, std::size_t block) const {
    const attention_spec& block_spec = spec(block);
    const std::size_t length = detail::size_of(row.is_vector() ? row.cols : row.rows, block_spec);
    if (const std::string* stored = tensors.find(detail::identity_of(block_spec, row.role, true)))
        return vector(*stored, length, 0, length);
    for (const detail::recipe_row& recipe : detail::recipes) {
        if (recipe.made != row.role || recipe.op == detail::row_op::join_kv_b) continue;
        const std::string* fused = tensors.find(detail::identity_of(block_spec, recipe.from[0], true));
        const std::size_t whole = detail::size_of(detail::find_role(recipe.from[0])->rows, block_spec);
        const std::size_t runs = detail::runs_of(recipe, block_spec);
        const std::size_t begin = detail::rows_before(recipe, block_spec) / runs;
        if (fused != nullptr) return vector(*fused, whole, begin, begin + length / runs, runs);
    }
    if (block_spec.biases.contains(row.role))
        detail::fail(errc::missing_tensor,
                     "a bias is required here (attention_bias, or the family always has it), and is not there",
                     {.file = files.path, .subject = tensors.name_of(detail::identity_of(block_spec, row.role, true))});
    return {};
}

inline void checkpoint::state::read_role(const detail::role_row& row, std::size_t block, held_weights& held,
                                         attention_weights<float>& weights_by_role) const {
    const attention_spec& block_spec = spec(block);
    const auto recipe = tensors.locate(row.role, block_spec);
    if (!recipe) {
        const std::string name = tensors.name_of(detail::identity_of(block_spec, row.role));
        const std::string parts = row.role == tensor_role::kv_b ? ", neither whole nor as k_b and v_b" : "";
        (void)weights().at(name);  // says why, if its quantisation does
        detail::fail(errc::missing_tensor, "required and absent" + parts, {.file = files.path, .subject = name});
    }
    if (row.is_vector()) {
        const std::size_t length = detail::size_of(row.cols, block_spec);
        const std::size_t heads =
            row.role == tensor_role::k_norm ? block_spec.geometry.kv_heads() : block_spec.geometry.num_heads;
        weights_by_role.vector(row.role) = vector(recipe->parts.front().name, length, 0, length, 1, heads);
        weights_by_role.bias(row.role) = bias(row, block);
        return;
    }
    weights_by_role[row.role] = recipe->joins_kv_b
                                    ? merge_kv_b(part(recipe->parts[0], block_spec, held),
                                                 part(recipe->parts[1], block_spec, held), block_spec.geometry)
                                    : part(recipe->parts.front(), block_spec, held);
    weights_by_role.bias(row.role) = bias(row, block);
}

/// Weights of a block for a spec that may differ from the stored one in its form.
inline attention_weights<float> checkpoint::state::read_block(const attention_spec& wanted, std::size_t block,
                                                              weight_storage storage) const {
    const model_config& model = require_config();
    if (block < model.block_begin || block >= model.block_end)
        detail::fail(errc::bad_value,
                     "block " + std::to_string(block) + " was not converted: these files hold blocks " +
                         std::to_string(model.block_begin) + " to " + std::to_string(model.block_end - 1),
                     {.file = files.path, .subject = "layer"});
    held_weights held{storage};
    attention_weights<float> weights_by_role;
    for (const detail::role_row& row : detail::attention_roles)
        if (detail::needs_role(row, wanted)) read_role(row, block, held, weights_by_role);
    return weights_by_role;
}

inline attention_weights<float> checkpoint::stored_weights(std::size_t block) const {
    return m_state->read_block(spec(block), block, weight_storage::from_file);
}

namespace detail {

/// What absorption takes of a block's weights.
inline mla_factors<float> factors_of(attention_weights<float>& w) {
    using enum tensor_role;
    return {.q = std::move(w[q]),
            .q_a = std::move(w[q_a]),
            .q_a_bias = std::move(w.bias(q_a)),
            .q_a_norm = std::move(w.vector(q_a_norm)),
            .q_b = std::move(w[q_b]),
            .kv_a = std::move(w[kv_a]),
            .kv_a_bias = std::move(w.bias(kv_a)),
            .kv_a_norm = std::move(w.vector(kv_a_norm)),
            .kv_b = std::move(w[kv_b])};
}

/// Moves what a block has in every form beside its projections: gate, sinks, norms of the keys.
inline void carry_over(attention_weights<float>& stored, const attention_spec& spec, attention_weights<float>& made) {
    for (const role_row& row : attention_roles) {
        if (!row.needed(spec, spec.form) || !made[row.role].empty() || !made.vector(row.role).empty()) continue;
        made[row.role] = std::move(stored[row.role]);
        made.vector(row.role) = std::move(stored.vector(row.role));
    }
}

inline void require_form(const model_config& model, const attention_spec& spec, attention_form form,
                         const std::string& path) {
    if (const std::string_view why = why_not(spec, form); !why.empty())
        fail(errc::unsupported_architecture, "\"" + model.family + "\" " + std::string(why), {.file = path});
}

}  // namespace detail

inline mla_factors<float> checkpoint::factors(std::size_t block) const {
    const attention_spec& block_spec = spec(block);
    detail::require_form(config(), block_spec, attention_form::latent, files().path);
    detail::require_form(config(), block_spec, attention_form::dense, files().path);
    attention_weights<float> stored = stored_weights(block);
    return detail::factors_of(stored);
}

inline attention_layer<float> checkpoint::attention(std::size_t block, attention_form form,
                                                    const layer_options& options) const {
    attention_spec layer = spec(block);
    detail::require_form(config(), layer, form, files().path);
    if (form == attention_form::latent && layer.form == attention_form::factored) {
        const std::string_view stored = dialect(block);
        layer.form = form;
        layer.latent_from = stored == "k_b+v_b" || stored == "all" ? latent_factors::split : latent_factors::kv_b;
    }
    if (form == layer.form) {
        attention_weights<float> weights = m_state->read_block(layer, block, options.storage);
        return {std::move(layer), std::move(weights)};
    }

    attention_weights<float> stored = m_state->read_block(layer, block, options.storage), taken = stored;
    const mla_factors<float> factors = detail::factors_of(taken);
    const mla_geometry published = layer.geometry;
    dense_mla<float> made = absorb(factors, published, {.threads = options.threads});
    layer.form = form;
    layer.biases = {};
    layer.geometry.order = made.order;
    layer.geometry.pairing = made.pairing;
    detail::reorder_stored_rows(stored, published, detail::head_rows(published, made.order, made.pairing));
    attention_weights<float> weights = to_attention_weights(std::move(made), std::move(stored[tensor_role::o]),
                                                            std::move(stored.bias(tensor_role::o)));
    detail::carry_over(stored, layer, weights);
    return {std::move(layer), std::move(weights)};
}

}  // namespace larql

#endif
