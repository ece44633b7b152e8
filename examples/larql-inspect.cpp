// SPDX-License-Identifier: Apache-2.0
//
// larql-inspect: what a checkpoint is, and what its attention costs in each form; tensors as float32 on request.
#include <larql/attention_cost.hpp>
#include <larql/checkpoint.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/safetensors_writer.hpp>

#include "support/program.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace {

using nlohmann::ordered_json;

struct arguments {
    std::string path;
    bool json = false;
    bool tensors = false;
    std::string dump;
    std::vector<std::string> names;
};

constexpr std::uint64_t assumed_bytes_per_number = 2;  // bf16 and f16, as engines hold weights and caches

std::string architecture_of(const larql::checkpoint& model) {
    if (model.gguf() != nullptr)
        return std::string(model.gguf()->find<std::string_view>("general.architecture").value_or(""));
    return model.find_config() != nullptr ? model.config().architecture : "";
}

std::string problem_of(const larql::checkpoint& model) {
    try {
        (void)model.config();
    } catch (const larql::error& e) {
        return e.what();
    }
    return {};
}

ordered_json rope_json(const larql::model_config& config) {
    const larql::rope_table table = larql::make_rope_table(config.rope);
    ordered_json rope = {{"type", larql::to_string(config.rope.kind)},
                         {"pairing", larql::to_string(config.pairing)},
                         {"rotary_dim", config.rope.rotary_dim},
                         {"theta", config.rope.theta}};
    if (config.rope.factor != 1.0) rope["factor"] = config.rope.factor;
    rope["magnitude"] = table.magnitude;
    return rope;
}

ordered_json config_json(const larql::model_config& c) {
    const bool latent = c.attention == larql::attention_kind::mla;
    ordered_json out = {{"attention", latent ? "mla" : "gqa"},
                        {"form", larql::to_string(c.form)},
                        {"hidden_size", c.hidden_size},
                        {"num_hidden_layers", c.num_hidden_layers},
                        {"num_attention_heads", c.num_attention_heads},
                        {"num_key_value_heads", c.num_key_value_heads},
                        {"head_dim", c.head_dim},
                        {"v_head_dim", c.v_head_dim}};
    if (latent) {
        out["q_lora_rank"] = c.q_lora_rank == 0 ? ordered_json(nullptr) : ordered_json(c.q_lora_rank);
        out["kv_lora_rank"] = c.kv_lora_rank;
        out["qk_nope_head_dim"] = c.qk_nope_head_dim;
        out["qk_rope_head_dim"] = c.qk_rope_head_dim;
        out["row_order"] = larql::to_string(c.order);
        out["latent_norm_eps"] = c.latent_norm_eps;
    }
    out["rms_norm_eps"] = c.rms_norm_eps;
    out["attention_scale"] = c.attention_scale;
    out["rope"] = rope_json(c);
    return out;
}

ordered_json forms_json(const larql::checkpoint& model) {
    ordered_json forms = ordered_json::object();
    const larql::model_config& config = model.config();
    const larql::mla_geometry geometry = model.geometry();
    for (const larql::attention_form form :
         {larql::attention_form::factored, larql::attention_form::dense, larql::attention_form::latent}) {
        const bool published = config.form == larql::attention_form::factored;
        if (form != config.form && !(published && config.attention == larql::attention_kind::mla)) continue;
        const larql::attention_cost cost = larql::cost_of(geometry, form);
        const std::uint64_t layers = config.num_hidden_layers;
        forms[std::string(larql::to_string(form))] = {
            {"weight_bytes", cost.weights * layers * assumed_bytes_per_number},
            {"kv_cache_numbers_per_token_per_layer", cost.cached_per_token},
            {"kv_cache_bytes_per_token", cost.cached_per_token * layers * assumed_bytes_per_number},
            {"flops_per_token", cost.flops_per_token * layers},
            {"flops_per_token_per_cached_token", cost.flops_per_cached_token * layers}};
    }
    return forms;
}

ordered_json describe(const larql::checkpoint& model, bool with_tensors) {
    const larql::model_config* config = model.find_config();
    const auto or_null = [](std::string_view text) {
        return text.empty() ? ordered_json(nullptr) : ordered_json(text);
    };
    std::map<std::string, std::uint64_t> types;
    std::uint64_t bytes = 0;
    for (const larql::tensor_info& info : model.tensors()) {
        ++types[std::string(larql::to_string(info.type))];
        bytes += info.size_bytes;
    }
    ordered_json out;
    out["format"] = or_null(model.format());
    out["architecture"] = or_null(architecture_of(model));
    out["family"] = config != nullptr ? ordered_json(config->family) : ordered_json(nullptr);
    out["dialect"] = or_null(config != nullptr ? model.dialect() : "");
    out["shards"] = model.shard_count();
    out["tensors"] = model.tensors().size();
    out["tensor_bytes"] = bytes;
    out["number_formats"] = types;
    out["config"] = config != nullptr ? config_json(*config) : ordered_json(nullptr);
    out["forms"] = config != nullptr ? forms_json(model) : ordered_json::object();
    if (config == nullptr) out["problem"] = problem_of(model);
    if (with_tensors) {
        out["tensor_list"] = ordered_json::array();
        for (const larql::tensor_info& info : model.tensors())
            out["tensor_list"].push_back({{"name", info.name},
                                          {"type", larql::to_string(info.type)},
                                          {"shape", info.shape},
                                          {"shard", info.shard},
                                          {"bytes", info.size_bytes}});
    }
    return out;
}

std::string with_unit(double value, double step, const std::vector<std::string>& units) {
    std::size_t unit = 0;
    while (value >= step && unit + 1 < units.size()) {
        value /= step;
        ++unit;
    }
    char text[32];
    std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit].c_str());
    return text;
}
std::string byte_text(std::uint64_t n) {
    return with_unit(static_cast<double>(n), 1024.0, {"B", "KiB", "MiB", "GiB", "TiB"});
}
std::string flop_text(std::uint64_t n) { return with_unit(static_cast<double>(n), 1000.0, {"", "k", "M", "G", "T"}); }

std::string scalar_text(const ordered_json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
}

void print_text(const ordered_json& d) {
    const auto line = [](const std::string& name, const std::string& value) {
        std::cout << name << std::string(name.size() < 22 ? 22 - name.size() : 1, ' ') << value << '\n';
    };
    for (const char* key : {"format", "architecture", "family", "dialect", "shards"})
        line(key, d[key].is_null() ? "-" : scalar_text(d[key]));
    if (d["tensors"] == 0) {
        line("tensors", "none: a configuration without weights");
    } else {
        std::string types;
        for (const auto& [name, count] : d["number_formats"].items())
            types += (types.empty() ? "" : ", ") + count.dump() + " " + name;
        line("tensors", d["tensors"].dump() + " (" + types + "), " + byte_text(d["tensor_bytes"]));
    }
    if (d.contains("problem")) return line("model", "unknown: " + d["problem"].get<std::string>());
    for (const auto& [key, value] : d["config"].items()) {
        if (!value.is_object()) {
            line(key, value.is_null() ? "none" : scalar_text(value));
            continue;
        }
        for (const auto& [inner, inner_value] : value.items()) line(key + "." + inner, scalar_text(inner_value));
    }
    std::cout << "\nform       weights (bf16)   cache/token/layer   cache/token (bf16)   FLOP/token   "
                 "FLOP/token/cached token\n";
    for (const auto& [form, cost] : d["forms"].items()) {
        char row[160];
        std::snprintf(row, sizeof row, "%-8s %16s %19s %20s %12s %25s\n", form.c_str(),
                      byte_text(cost["weight_bytes"]).c_str(),
                      (cost["kv_cache_numbers_per_token_per_layer"].dump() + " numbers").c_str(),
                      byte_text(cost["kv_cache_bytes_per_token"]).c_str(), flop_text(cost["flops_per_token"]).c_str(),
                      flop_text(cost["flops_per_token_per_cached_token"]).c_str());
        std::cout << row;
    }
    if (d.contains("tensor_list")) {
        std::cout << '\n';
        for (const ordered_json& t : d["tensor_list"])
            std::cout << t["name"].get<std::string>() << "  " << t["type"].get<std::string>() << "  "
                      << t["shape"].dump() << "  shard " << t["shard"].dump() << "  " << byte_text(t["bytes"]) << '\n';
    }
}

/// Rows [begin, end) of a weight as float; a dump is an explicit request, so integers are converted too.
void read_as_float(const larql::checkpoint& model, const larql::weight& weight, std::uint64_t begin, std::uint64_t end,
                   std::span<float> out) {
    const auto columns = static_cast<std::size_t>(weight.columns());
    if (larql::traits_of(weight.type()).kind != larql::dtype_kind::integer || weight.raw() == nullptr)
        return weight.read_rows(begin, end, out.data(), columns);
    const std::size_t row_bytes = columns * larql::traits_of(weight.type()).block_bytes;
    larql::dequantize_integers(
        weight.type(),
        model.bytes(*weight.raw())
            .subspan(static_cast<std::size_t>(begin) * row_bytes, static_cast<std::size_t>(end - begin) * row_bytes),
        out);
}

void dump(const larql::checkpoint& model, const arguments& args) {
    std::vector<larql::weight> weights;
    const std::vector<std::string> names = args.names.empty() ? model.weights().names() : args.names;
    larql::safetensors_writer writer(args.dump, {.replace = true, .inputs = model.paths()});
    for (const std::string& name : names) {
        weights.push_back(model.weights().at(name));
        writer.add_tensor(name, larql::dtype::f32, {weights.back().shape().begin(), weights.back().shape().end()});
    }
    larql::program::progress_bar progress("dumping", false);
    std::vector<float> buffer;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const std::uint64_t columns = std::max<std::uint64_t>(weights[i].columns(), 1);
        const std::uint64_t step = std::max<std::uint64_t>((std::uint64_t{4} << 20) / columns, 1);
        for (std::uint64_t row = 0; row < weights[i].rows(); row += step) {
            const std::uint64_t end = std::min(weights[i].rows(), row + step);
            buffer.resize(static_cast<std::size_t>((end - row) * weights[i].columns()));
            read_as_float(model, weights[i], row, end, buffer);
            writer.write(weights[i].name(), std::as_bytes(std::span(buffer)));
        }
        progress.show(i + 1, weights.size());
    }
    writer.commit();
}

}  // namespace

int main(int argc, char** argv) {
    arguments args;
    CLI::App app("Says what a checkpoint is and what its attention costs in each form.", "larql-inspect");
    app.add_option("PATH", args.path, "a .gguf file (any shard), a .safetensors file or index, or a model folder")
        ->required();
    app.add_flag("--json", args.json, "machine-readable output");
    app.add_flag("--tensors", args.tensors, "list the tensors");
    auto* dump_option =
        app.add_option("--dump", args.dump, "write tensors, dequantised to float32, to this safetensors file");
    app.add_option("--names", args.names, "with --dump: only these tensors, separated by commas")
        ->delimiter(',')
        ->needs(dump_option);
    return larql::program::run(app, argc, argv, [&] {
        const larql::checkpoint model = larql::checkpoint::open(args.path);
        if (!args.dump.empty()) return dump(model, args);
        const ordered_json description = describe(model, args.tensors);
        if (args.json)
            std::cout << description.dump(2, ' ', true, ordered_json::error_handler_t::replace) << '\n';
        else
            print_text(description);
    });
}
