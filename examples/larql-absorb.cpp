// SPDX-License-Identifier: Apache-2.0
//
// larql-absorb: converts a checkpoint between the forms of attention, containers, dialects and number formats.
#include <larql/convert.hpp>

#include "support/program.hpp"
#include "support/progress.hpp"
#include "support/reading.hpp"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace {

struct arguments {
    std::string in, out;
    std::string form = "dense";
    std::string to = "safetensors";
    std::string dialect = "k_b+v_b";
    std::string type = "source";
    std::string attention_type;
    std::string shard_size = "5G";
    std::string layers;
    std::string part;
    std::size_t threads = 0;
    bool join = false, dry_run = false, resume = false, force = false, quiet = false;
    larql::program::reading reading;
};

const std::vector<std::string> type_names = {"source", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_K", "q6_K"};

/// The type of this name, or nothing for "source".
std::optional<larql::dtype> type_of(const std::string& name) {
    const std::map<std::string, larql::dtype> types = {{"f32", larql::dtype::f32},   {"f16", larql::dtype::f16},
                                                       {"bf16", larql::dtype::bf16}, {"q8_0", larql::dtype::q8_0},
                                                       {"q4_0", larql::dtype::q4_0}, {"q4_K", larql::dtype::q4_k},
                                                       {"q6_K", larql::dtype::q6_k}};
    const auto found = types.find(name);
    return found == types.end() ? std::nullopt : std::optional(found->second);
}

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

/// Two numbers with a character between them, either of which may be missing if they were given values before.
bool parse_pair(const std::string& text, char between, std::size_t& first, std::size_t& second) {
    const std::size_t at = text.find(between);
    if (at == std::string::npos) return false;
    const auto number = [](const std::string& part, std::size_t& value) {
        if (part.empty()) return true;
        const auto [stop, problem] = std::from_chars(part.data(), part.data() + part.size(), value);
        return problem == std::errc{} && stop == part.data() + part.size();
    };
    return number(text.substr(0, at), first) && number(text.substr(at + 1), second);
}

bool parse_part(const std::string& text, std::size_t& number, std::size_t& count) {
    return parse_pair(text, '/', number, count) && number >= 1 && number <= count && count <= 65535;
}

std::string in_words(std::uint64_t bytes) { return larql::program::size_text(bytes); }

void print_plan(const larql::conversion& planned) {
    std::uint64_t bytes = 0;
    std::size_t tensors = 0;
    for (const larql::conversion::file& file : planned.files()) {
        std::cout << larql::printable(file.name) << ": " << in_words(file.size_bytes);
        if (file.tensors != 0) std::cout << ", " << file.tensors << " tensors";
        std::cout << '\n';
        bytes += file.size_bytes;
        tensors += file.tensors;
    }
    std::cout << "together: " << planned.rows() << " rows of work, " << tensors << " tensors, "
              << planned.files().size() << " files, " << bytes << " bytes\n";
    std::filesystem::path folder = planned.folder();
    std::error_code unknown;
    while (!std::filesystem::exists(folder, unknown) && folder.has_parent_path() && folder != folder.parent_path())
        folder = folder.parent_path();
    if (!std::filesystem::exists(folder, unknown)) folder = ".";
    const std::filesystem::space_info space = std::filesystem::space(folder, unknown);
    if (!unknown)
        std::cout << "disk: " << in_words(space.available) << " free" << (space.available < bytes ? ": NOT ENOUGH" : "")
                  << '\n';
    const double rate = planned.measure(2.0);
    if (rate > 0.0)
        std::cout << "time: about " << larql::program::time_text(static_cast<double>(bytes) / rate) << " at "
                  << in_words(static_cast<std::uint64_t>(rate))
                  << "/s, as fast as rows are made here; writing is not counted\n";
}

void convert(const arguments& args) {
    larql::program::use_whole_processor();
    larql::thread_pool threads(larql::program::thread_number(args.threads));
    const larql::checkpoint source = args.reading.open(args.in);
    larql::program::progress_line line("absorbing", args.quiet);
    larql::conversion_options options{.form = *larql::attention_form_from_name(args.form),
                                      .to = args.to == "gguf"     ? larql::container::gguf
                                            : args.to == "vindex" ? larql::container::vindex
                                                                  : larql::container::safetensors,
                                      .type = type_of(args.type),
                                      .attention_type = type_of(args.attention_type),
                                      .split_kv_b = args.dialect == "k_b+v_b",
                                      .shard_bytes = parse_size(args.shard_size),
                                      .replace = args.force,
                                      .resume = args.resume,
                                      .join = args.join,
                                      .threads = &threads,
                                      .progress = [&](std::uint64_t done, std::uint64_t total) {
                                          larql::program::stop_if_asked();
                                          line.show(done, total);
                                      }};
    if (!args.layers.empty()) (void)parse_pair(args.layers, ':', options.layer_begin, options.layer_end);
    if (!args.part.empty()) (void)parse_part(args.part, options.part, options.parts);
    if (options.join) options.part = 0;
    larql::conversion planned(source, args.out, options);
    for (const std::string& warning : planned.warnings()) std::cerr << "warning: " << larql::printable(warning) << '\n';
    if (args.dry_run) return print_plan(planned);
    larql::program::catch_interrupts();
    planned.run();
    line.finish();
    if (args.quiet) return;
    std::cout << larql::printable(args.out) << ": " << larql::printable(source.config().family) << ", "
              << std::min(options.layer_end, source.attention_blocks()) - options.layer_begin << " attention blocks in "
              << args.form << " form, " << args.to << ", " << args.type;
    if (options.part != 0) std::cout << ", part " << options.part << " of " << options.parts;
    std::cout << '\n';
}

}  // namespace

int main(int argc, char** argv) {
    arguments args;
    CLI::App app("Converts a checkpoint between forms of attention, containers, dialects and number formats.",
                 "larql-absorb");
    app.add_option("IN", args.in, "the checkpoint")->required();
    app.add_option("OUT", args.out, "folder to write; for GGUF also a file that ends in .gguf")->required();
    app.add_option("--form", args.form, "dense (default), latent or factored")
        ->check(CLI::IsMember({"dense", "latent", "factored"}));
    app.add_option("--to", args.to, "safetensors (default), gguf or vindex")
        ->check(CLI::IsMember({"safetensors", "gguf", "vindex"}));
    app.add_option("--dialect", args.dialect, "of factored GGUF: k_b+v_b (default, as llama.cpp now) or kv_b (older)")
        ->check(CLI::IsMember({"k_b+v_b", "kv_b"}));
    app.add_option("--dtype", args.type,
                   "source (default: as stored, computed ones f32), f32, f16 or bf16; GGUF also q8_0, q4_0, q4_K, q6_K")
        ->check(CLI::IsMember(type_names));
    app.add_option("--attn-dtype", args.attention_type, "the same for attention alone; default: as --dtype")
        ->check(CLI::IsMember(type_names));
    app.add_option("--shard-size", args.shard_size, "tensor data per file, such as 5G (default) or 500M")
        ->check([](const std::string& text) { return parse_size(text) != 0 ? "" : "expected a size such as 5G"; });
    app.add_option("--layers", args.layers, "A:B, attention blocks from A up to, not including, B")
        ->check([](const std::string& text) {
            std::size_t begin = 0, end = 0;
            return parse_pair(text, ':', begin, end) ? "" : "expected A:B";
        });
    app.add_option("--part", args.part, "I/N: make part I, from 1, of N")->check([](const std::string& text) {
        std::size_t number = 0, count = 0;
        return parse_part(text, number, count) ? "" : "expected I/N with I from 1 to N";
    });
    app.add_flag("--join", args.join, "make a model of what all parts made");
    app.add_option("--threads", args.threads,
                   "threads to use, at most 64 or four per processor; default: one per processor");
    app.add_flag("--dry-run", args.dry_run, "print what would be made, and how long it would take");
    app.add_flag("--resume", args.resume, "go on where an earlier run of the same command ended");
    app.add_flag("--force", args.force, "replace a model that is already there");
    app.add_flag("--quiet", args.quiet, "print nothing but errors and warnings");
    args.reading.add_to(app);
    return larql::program::run(app, argc, argv, [&] { convert(args); });
}
