// SPDX-License-Identifier: Apache-2.0
//
// larql-absorb: converts a checkpoint between the forms of attention, streaming.
#include <larql/convert.hpp>

#include "support/program.hpp"
#include "support/reading.hpp"

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <limits>
#include <map>
#include <string>

namespace {

struct arguments {
    std::string in, out;
    std::string form = "dense";
    std::string to = "safetensors";
    std::string type = "f32";
    std::string shard_size = "5G";
    std::string layers;
    std::size_t threads = 0;
    bool force = false;
    bool quiet = false;
    larql::program::reading reading;
};

/// "5G", "500M", "100000": decimal units, as in transformers' max_shard_size. 0 if it is not a size.
std::uint64_t parse_size(const std::string& text) {
    std::uint64_t number = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (problem != std::errc{}) return 0;
    std::string unit(end, text.data() + text.size());
    if (unit.ends_with('B')) unit.pop_back();
    const std::map<std::string, std::uint64_t> units = {{"", 1}, {"K", 1'000}, {"M", 1'000'000}, {"G", 1'000'000'000}};
    const auto found = units.find(unit);
    if (found == units.end() || number > std::numeric_limits<std::uint64_t>::max() / found->second) return 0;
    return number * found->second;
}

/// "A:B", "A:" or ":B": blocks [A, B).
bool parse_layers(const std::string& text, std::size_t& begin, std::size_t& end) {
    const std::size_t colon = text.find(':');
    if (colon == std::string::npos) return false;
    const auto number = [](const std::string& part, std::size_t& value) {
        if (part.empty()) return true;
        const auto [stop, problem] = std::from_chars(part.data(), part.data() + part.size(), value);
        return problem == std::errc{} && stop == part.data() + part.size();
    };
    return number(text.substr(0, colon), begin) && number(text.substr(colon + 1), end);
}

void convert(const arguments& args) {
    larql::program::use_whole_processor();
    larql::thread_pool threads(args.threads);
    const larql::checkpoint source = args.reading.open(args.in);
    larql::program::progress_bar bar("absorbing", args.quiet);
    larql::conversion_options options{.form = *larql::attention_form_from_name(args.form),
                                      .type = args.type == "f32"   ? larql::dtype::f32
                                              : args.type == "f16" ? larql::dtype::f16
                                                                   : larql::dtype::bf16,
                                      .shard_bytes = parse_size(args.shard_size),
                                      .replace = args.force,
                                      .threads = &threads,
                                      .progress = [&](std::size_t done, std::size_t total) { bar.show(done, total); }};
    if (!args.layers.empty()) (void)parse_layers(args.layers, options.layer_begin, options.layer_end);
    larql::convert_to_safetensors(source, args.out, options);
    if (!args.quiet)
        std::cout << larql::printable(args.out) << ": " << larql::printable(source.config().family) << ", "
                  << std::min(options.layer_end, source.attention_blocks()) - options.layer_begin
                  << " attention blocks in " << args.form << " form, " << args.type << '\n';
}

}  // namespace

int main(int argc, char** argv) {
    arguments args;
    CLI::App app("Converts a checkpoint between the forms of attention.", "larql-absorb");
    app.add_option("IN", args.in, "the checkpoint")->required();
    app.add_option("OUT", args.out, "folder to write")->required();
    app.add_option("--form", args.form, "dense (default), latent or factored")
        ->check(CLI::IsMember({"dense", "latent", "factored"}));
    app.add_option("--to", args.to, "safetensors")->check(CLI::IsMember({"safetensors"}));
    app.add_option("--dtype", args.type, "f32 (default), f16 or bf16: of the tensors that are computed or decoded")
        ->check(CLI::IsMember({"f32", "f16", "bf16"}));
    app.add_option("--shard-size", args.shard_size, "tensor data per file, such as 5G (default) or 500M")
        ->check([](const std::string& text) { return parse_size(text) != 0 ? "" : "expected a size such as 5G"; });
    app.add_option("--layers", args.layers, "A:B, attention blocks from A up to, not including, B")
        ->check([](const std::string& text) {
            std::size_t begin = 0, end = 0;
            return parse_layers(text, begin, end) ? "" : "expected A:B";
        });
    app.add_option("--threads", args.threads, "threads to use; default: one per processor");
    app.add_flag("--force", args.force, "replace a conversion that is already there");
    app.add_flag("--quiet", args.quiet, "print nothing but errors");
    args.reading.add_to(app);
    return larql::program::run(app, argc, argv, [&] { convert(args); });
}
