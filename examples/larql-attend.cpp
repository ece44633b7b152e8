// SPDX-License-Identifier: Apache-2.0
//
// larql-attend: runs one attention block of a checkpoint on given hidden states, in any form, and writes every
// intermediate that a comparison with another implementation wants.
#include <larql/checkpoint.hpp>
#include <larql/safetensors.hpp>
#include <larql/safetensors_writer.hpp>

#include "support/output.hpp"
#include "support/program.hpp"
#include "support/reading.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr const char* program_name = "larql-attend";

struct arguments {
    std::string path;
    std::size_t layer = 0;
    std::string hidden;
    std::string out;
    std::string selection;
    std::string kv_hidden;
    std::string form;  // "": the stored one
    std::size_t threads = 0;
    bool force = false;
    larql::program::reading reading;
};

using larql::tensor;

/// [seq, heads, dim] as [heads, seq, dim], the layout in which transformers passes them to its attention functions.
tensor<float, 3> heads_first(const tensor<float, 3>& x) {
    const std::size_t tokens = x.shape(0), heads = x.shape(1), dim = x.shape(2);
    auto out = tensor<float, 3>::from_shape({heads, tokens, dim});
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t h = 0; h < heads; ++h)
            for (std::size_t i = 0; i < dim; ++i) out(h, t, i) = x(t, h, i);
    return out;
}

tensor<float, 2> read_hidden(const std::string& path, std::size_t width) {
    const larql::safetensors_file file = larql::safetensors_file::open(path);
    tensor<float, 2> hidden = file.read<2>("hidden");
    if (hidden.shape(1) != width)
        throw larql::error(
            larql::errc::shape_mismatch,
            "expected hidden states of width " + std::to_string(width) + ", got " + std::to_string(hidden.shape(1)),
            {.file = path, .subject = "hidden"});
    return hidden;
}

/// A selection as rows of equal length, filled up with -1.
std::vector<std::int32_t> to_rows(const larql::key_selection& selection, std::size_t width) {
    std::vector<std::int32_t> rows(selection.tokens() * width, -1);
    for (std::size_t t = 0; t < selection.tokens(); ++t)
        std::ranges::transform(selection.of(t), rows.data() + t * width,
                               [](std::uint32_t key) { return static_cast<std::int32_t>(key); });
    return rows;
}

/// `selection` of a file that larql-attend wrote; none if the file has none, as every key was seen.
larql::key_selection read_selection(const std::string& path) {
    larql::key_selection selection;
    if (path.empty()) return selection;
    const larql::safetensors_file file = larql::safetensors_file::open(path);
    if (file.find_tensor("selection") == nullptr) return selection;
    const tensor<std::int32_t, 2> rows = file.read_integers<std::int32_t, 2>("selection");
    for (std::size_t t = 0; t < rows.shape(0); ++t) {
        std::vector<std::uint32_t> list;
        for (std::size_t i = 0; i < rows.shape(1); ++i)
            if (rows(t, i) >= 0) list.push_back(static_cast<std::uint32_t>(rows(t, i)));
        selection.append(list);
    }
    return selection;
}

/// Each token sees itself alone: for a block whose output nobody wants.
larql::key_selection own_keys(std::size_t tokens) {
    larql::key_selection selection;
    for (std::uint32_t t = 0; t < tokens; ++t) selection.append({&t, 1});
    return selection;
}

using layer_type = larql::attention_layer<float>;

/// The block on the hidden states, alone, or on a cache that the block fills whose keys and values it shares. k and v
/// of the result are those that it attends to.
larql::attention_result<float> compute(const arguments& args, const larql::checkpoint& model, const layer_type& layer,
                                       const tensor<float, 2>& hidden, const larql::forward_options& options) {
    const auto& kv_layer = layer.spec().kv_layer;
    if (kv_layer.has_value() == args.kv_hidden.empty())
        throw larql::error(larql::errc::bad_value,
                           kv_layer ? "attention block " + std::to_string(args.layer) +
                                          " attends to keys and values of block " +
                                          std::to_string(model.config().kv_block(args.layer)) +
                                          ", and the hidden states of that block are not given"
                                    : "is given, and the block has keys and values of its own",
                           {.file = args.path, .subject = "--kv-hidden"});
    if (!kv_layer) return layer.forward(hidden, options);
    const layer_type other = model.attention(model.config().kv_block(args.layer), layer.spec().form);
    const tensor<float, 2> kv_hidden = read_hidden(args.kv_hidden, model.config().hidden_size);
    if (kv_hidden.shape(0) != hidden.shape(0))
        throw larql::error(larql::errc::shape_mismatch,
                           "expected hidden states of " + std::to_string(hidden.shape(0)) +
                               " tokens, as --hidden has, got " + std::to_string(kv_hidden.shape(0)),
                           {.file = args.kv_hidden, .subject = "hidden"});
    auto cache = other.make_cache(hidden.shape(0));
    // Its keys do not depend on which of them its tokens see.
    const larql::key_selection any = other.spec().indexer.shared ? own_keys(hidden.shape(0)) : larql::key_selection{};
    larql::attention_result<float> keys =
        other.forward(kv_hidden, cache, {.selection = &any, .threads = options.threads});
    const auto on_cache = [&] {
        if (!layer.spec().indexer.own()) return layer.forward(hidden, cache, options);
        auto index = layer.make_cache(hidden.shape(0));
        return layer.forward(hidden, cache, index, options);
    };
    larql::attention_result<float> result = on_cache();
    result.k = std::move(keys.k);
    result.v = std::move(keys.v);
    return result;
}

void attend(const arguments& args) {
    larql::program::use_whole_processor();
    larql::thread_pool threads(larql::program::thread_number(args.threads));
    const larql::checkpoint model = args.reading.open(args.path);
    const auto form = larql::attention_form_from_name(args.form).value_or(model.config().form);
    const auto layer = model.attention(args.layer, form, {.threads = &threads});
    const tensor<float, 2> hidden = read_hidden(args.hidden, model.config().hidden_size);
    const larql::key_selection given = read_selection(args.selection);
    const larql::attention_result<float> result =
        compute(args, model, layer, hidden, {.selection = &given, .threads = &threads});

    auto writer = larql::program::open_output(args.out, program_name, args.force, model,
                                              {args.hidden, args.selection, args.kv_hidden, args.reading.config});
    const tensor<float, 3> q = heads_first(result.q), k = heads_first(result.k), v = heads_first(result.v);
    const auto declare = [&](const char* name, const auto& x) {
        writer.add_tensor(name, larql::dtype::f32, {x.shape().begin(), x.shape().end()});
    };
    const auto write = [&](const char* name, const auto& x) {
        writer.write(name, std::as_bytes(std::span(x.data(), x.size())));
    };
    const auto each = [&](const auto& act) {
        act("q", q);
        act("k", k);
        act("v", v);
        act("context", result.context);
        act("out", result.out);
    };
    each(declare);
    const std::size_t most_keys = layer.spec().indexer.top_k + layer.spec().indexer.pool - 1;  // of a token
    const std::vector<std::int32_t> selection = to_rows(result.selection, most_keys);
    if (!selection.empty()) writer.add_tensor("selection", larql::dtype::i32, {result.selection.tokens(), most_keys});
    each(write);
    if (!selection.empty()) writer.write("selection", std::as_bytes(std::span(selection)));
    writer.commit();
}

}  // namespace

int main(int argc, char** argv) {
    arguments args;
    CLI::App app("Runs one attention block of a checkpoint on given hidden states.", program_name);
    app.add_option("PATH", args.path, "the checkpoint")->required();
    app.add_option("--layer", args.layer, "number of the attention block, from 0")->required();
    app.add_option("--hidden", args.hidden,
                   "safetensors with `hidden` [seq, hidden]: the block's input after the input norm, positions from 0")
        ->required();
    app.add_option(
           "--out", args.out,
           "safetensors to write: q, k, v [heads, seq, dim], context, out [seq, ...]; if the block selects keys, "
           "selection [seq, keys], filled up with -1")
        ->required();
    app.add_option("--selection", args.selection,
                   "for a block that shares the keys that another selects: the file that --out wrote for that one");
    app.add_option(
        "--kv-hidden", args.kv_hidden,
        "for a block that attends to keys and values of another: safetensors with `hidden` of that block, for "
        "the same tokens");
    app.add_option("--form", args.form, "factored, dense or latent (default: the form in which the weights are stored)")
        ->check(CLI::IsMember({"factored", "dense", "latent"}));
    app.add_flag("--force", args.force, "replace an output that larql-attend did not make");
    app.add_option("--threads", args.threads,
                   "threads to use, at most 64 or four per processor; default: one per processor");
    args.reading.add_to(app);
    return larql::program::run(app, argc, argv, [&] { attend(args); });
}
