// SPDX-License-Identifier: Apache-2.0
//
// Conversions into GGUF, held against llama.cpp's converter, and what happens to runs that are cut short.
#include <larql/convert.hpp>
#include <larql/detail/convert/planned_conversion.hpp>
#include <larql/detail/io/sha256.hpp>
#include <larql/safetensors_writer.hpp>

#include <nlohmann/json.hpp>
#include <support/converted.hpp>
#include <support/failing_calls.hpp>
#include <support/files.hpp>
#include <support/gguf_files.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

namespace fs = std::filesystem;
using larql::attention_form;
using larql::checkpoint;
using larql::container;
using larql::conversion;
using larql::conversion_options;
using larql::dtype;
using larql::errc;
using larql::gguf_file;
using larql::testing::check_same_metadata;
using larql::testing::check_same_tensors;
using larql::testing::error_against;
using larql::testing::names_of;
using larql::testing::numbers;
using larql::testing::relative_error;

const std::string data = LARQL_TEST_DATA;

int convert(const fs::path& from, const fs::path& to, const conversion_options& options) {
    conversion(checkpoint::open(from), to, options).run();
    return 0;
}

/// The same with several threads.
int convert_together(const fs::path& from, const fs::path& to, conversion_options options) {
    larql::thread_pool threads(3);
    options.threads = &threads;
    return convert(from, to, options);
}

const conversion_options to_gguf{.form = attention_form::factored, .to = container::gguf};

std::string read_all(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Every regular file of a folder with its content.
std::map<std::string, std::string> files_in(const fs::path& folder) {
    std::map<std::string, std::string> files;
    if (!fs::exists(folder)) return files;
    for (const auto& entry : fs::directory_iterator(folder))
        if (entry.is_regular_file()) files[entry.path().filename().string()] = read_all(entry.path());
    return files;
}

bool has_temporaries(const fs::path& folder) {
    for (const auto& [name, content] : files_in(folder))
        if (name.find("larql-") != name.npos) return true;
    return false;
}

}  // namespace

TEST_CASE("conversion: GGUF of a model is what llama.cpp's converter writes, and the way back loses nothing") {
    const larql::testing::temporary_folder folder;
    for (const std::string name : {"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "llama3"}) {
        CAPTURE(name);
        const fs::path made = folder.path() / (name + ".gguf");
        convert_together(data + "/hf/" + name, made, to_gguf);
        const gguf_file got = gguf_file::open(made), want = gguf_file::open(data + "/gguf/" + name + "-bf16.gguf");
        check_same_tensors(got, want);
        // llama.cpp's converter leaves the scoring out where config.json does; transformers' class has it fixed.
        check_same_metadata(got, want, {"deepseek32.expert_gating_func"});
        if (name == "deepseek_v32") CHECK(got.get<int>("deepseek32.expert_gating_func") == 2);
        convert(made, folder.path() / name, {.form = attention_form::factored});
        const checkpoint back = checkpoint::open(folder.path() / name);
        const checkpoint published = checkpoint::open(data + "/hf/" + name);
        CHECK(names_of(back) == names_of(published));
        for (const larql::tensor_info& info : published.tensors()) {
            CAPTURE(info.name);
            const larql::tensor_info& same = back.safetensors()->at_tensor(info.name);
            CHECK(same.type == info.type);
            CHECK(std::ranges::equal(back.bytes(same), published.bytes(info)));
        }
    }
}

TEST_CASE("conversion: dialects of GGUF become each other, with their metadata") {
    const larql::testing::temporary_folder folder;
    for (const std::string name : {"deepseek_v2", "deepseek_v3", "kimi_k2"}) {
        CAPTURE(name);
        const fs::path old = data + "/gguf/" + name + "-old-f16.gguf";
        conversion_options options = to_gguf;
        convert(old, folder.path() / (name + "-new.gguf"), options);
        const gguf_file current = gguf_file::open(folder.path() / (name + "-new.gguf"));
        CHECK(checkpoint::open(folder.path() / (name + "-new.gguf")).dialect() == "k_b+v_b");
        check_same_metadata(current, gguf_file::open(data + "/gguf/" + name + "-bf16.gguf"), {"general.file_type"});
        CHECK(error_against(name, checkpoint::open(folder.path() / (name + "-new.gguf")), attention_form::factored) <=
              1e-3);  // as the old file, which rounds to f16
        options.split_kv_b = false;
        convert(folder.path() / (name + "-new.gguf"), folder.path() / (name + "-again.gguf"), options);
        const gguf_file again = gguf_file::open(folder.path() / (name + "-again.gguf"));
        check_same_tensors(again, gguf_file::open(old));
        const std::string a = "deepseek2.";
        const std::string groups = a + "expert_group_count", used = a + "expert_group_used_count",
                          fast = a + "rope.scaling.yarn_beta_fast", slow = a + "rope.scaling.yarn_beta_slow";
        check_same_metadata(again, gguf_file::open(old), {groups, used, fast, slow});
    }
}

TEST_CASE("conversion: every form in GGUF computes what transformers computed, in shards too") {
    const larql::testing::temporary_folder folder;
    for (const std::string name : {"deepseek_v2_lite", "deepseek_v3_fp8"})
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
            CAPTURE(name);
            CAPTURE(larql::to_string(form));
            const fs::path out = folder.path() / name / larql::to_string(form);
            convert(data + "/hf/" + name, out, {.form = form, .to = container::gguf, .shard_bytes = 100'000});
            CHECK(fs::exists(out / "model-00001-of-00003.gguf") ==
                  (name == "deepseek_v2_lite" && form == attention_form::factored));
            const checkpoint made = checkpoint::open(out);
            CHECK(made.shard_count() > 1);
            CHECK(made.config().form == form);
            CHECK(error_against(name, made, form) <= 1e-5);
            if (form == attention_form::factored) continue;
            const auto architecture = made.gguf()->find<std::string>("general.architecture");
            CHECK(architecture == "larql-" + std::string(larql::to_string(form)));
        }
}

TEST_CASE("conversion: a vindex is what the layout says, and computes what transformers computed") {
    const larql::testing::temporary_folder folder;
    for (const std::string name : {"deepseek_v3", "kimi_k2", "llama3"})
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
            if (name == "llama3" && form != attention_form::factored) continue;
            CAPTURE(name);
            CAPTURE(larql::to_string(form));
            const fs::path out = folder.path() / name / larql::to_string(form);
            const checkpoint source = checkpoint::open(data + "/hf/" + name);
            conversion made(source, out, {.form = form, .to = container::vindex});
            CHECK(made.warnings().size() == (name == "llama3" ? 0 : 1));
            made.run();
            const checkpoint converted = checkpoint::open(out);
            CHECK(converted.format() == "vindex");
            CHECK(error_against(name, converted, form) <= 1e-5);
            CHECK(names_of(converted).contains("lm_head.weight"));

            // The layout's own acceptance checks.
            const nlohmann::json index = nlohmann::json::parse(read_all(out / "index.json"));
            for (const char* key :
                 {"version", "num_layers", "hidden_size", "intermediate_size", "vocab_size", "down_top_k"})
                CHECK(index.at(key).is_number_integer());
            CHECK(index.at("version") == 2);
            CHECK(index.at("embed_scale").is_number());
            CHECK(index.at("has_model_weights") == true);
            const nlohmann::json& model = index.at("model_config");
            std::map<std::string, std::vector<std::pair<std::size_t, std::size_t>>> ranges;
            std::set<std::string> keys;
            const nlohmann::json manifest = nlohmann::json::parse(read_all(out / "weight_manifest.json"));
            for (const nlohmann::json& entry : manifest) {
                std::size_t elements = 1;
                for (const std::size_t extent : entry.at("shape")) elements *= extent;
                CHECK(entry.at("length") == 4 * elements);
                ranges[entry.at("file")].emplace_back(entry.at("offset"), entry.at("length"));
                keys.insert(entry.at("key"));
                const std::string key = entry.at("key");
                if (key.ends_with("q_proj.weight"))
                    CHECK(entry.at("shape").at(0) ==
                          model.at("num_q_heads").get<int>() * model.at("head_dim").get<int>());
            }
            CHECK(keys.contains("layers.1.self_attn.o_proj.weight"));
            CHECK(keys.contains("norm.weight"));
            if (form == attention_form::dense) CHECK(keys.contains("layers.0.self_attn.v_proj.weight"));
            for (auto& [file, parts] : ranges) {
                std::ranges::sort(parts);
                std::size_t end = 0;
                for (const auto& [offset, length] : parts) {
                    CHECK(offset == end);
                    end = offset + length;
                }
                CHECK(end == fs::file_size(out / file));
            }
            CHECK(fs::file_size(out / "embeddings.bin") ==
                  index.at("vocab_size").get<std::size_t>() * index.at("hidden_size").get<std::size_t>() * 4);
            std::size_t end = 0;
            for (const nlohmann::json& layer : index.at("layers")) {
                CHECK(layer.at("offset") == end);
                CHECK(layer.at("length") ==
                      layer.at("num_features").get<std::size_t>() * index.at("hidden_size").get<std::size_t>() * 4);
                end += layer.at("length").get<std::size_t>();
            }
            CHECK(end == fs::file_size(out / "gate_vectors.bin"));
            CHECK(index.at("checksums").size() >= 6);
            for (const auto& [file, hash] : index.at("checksums").items()) {
                larql::detail::sha256 sum;
                const std::string content = read_all(out / file);
                sum.update(std::as_bytes(std::span(content)));
                CHECK(hash == larql::detail::hex_text(sum.finish()));
            }
        }
}

TEST_CASE("conversion: number formats follow llama.cpp's rules for what is never quantised") {
    const larql::testing::temporary_folder folder;
    conversion_options options = to_gguf;
    options.type = dtype::q8_0;
    convert(data + "/hf/deepseek_v3", folder / "a.gguf", options);
    const gguf_file made = gguf_file::open(folder / "a.gguf");
    CHECK(made.at_tensor("blk.0.attn_q_a.weight").type == dtype::q8_0);
    CHECK(made.at_tensor("blk.0.attn_norm.weight").type == dtype::f32);
    CHECK(made.at_tensor("blk.1.ffn_gate_inp.weight").type == dtype::f32);
    CHECK(made.at_tensor("blk.1.exp_probs_b.bias").type == dtype::f32);
    CHECK(made.at_tensor("blk.0.attn_k_b.weight").type == dtype::f16);  // rows of 24: no whole number of blocks
    CHECK(made.at_tensor("blk.0.attn_v_b.weight").type == dtype::q8_0);
    CHECK(made.find<std::uint32_t>("general.file_type") == 7U);
    CHECK(error_against("deepseek_v3", checkpoint::open(folder / "a.gguf"), attention_form::factored) < 0.05);

    options.type = dtype::q4_k;  // no row here has 256 elements: the quantiser's fallback
    options.attention_type = dtype::f16;
    convert(data + "/hf/deepseek_v3", folder / "b.gguf", options);
    const gguf_file mixed = gguf_file::open(folder / "b.gguf");
    CHECK(mixed.at_tensor("blk.0.ffn_up.weight").type == dtype::q8_0);
    CHECK(mixed.at_tensor("blk.0.attn_q_a.weight").type == dtype::f16);

    // Stored blocks are copied where a tensor does not change: bit for bit through the other dialect and back.
    conversion_options kept = to_gguf;
    convert(folder / "a.gguf", folder / "c.gguf", kept);
    check_same_tensors(gguf_file::open(folder / "c.gguf"), made);
    conversion_options small{.form = attention_form::factored, .type = dtype::q8_0};
    LARQL_CHECK_ERROR(convert(data + "/hf/deepseek_v3", folder / "d", small), errc::unsupported_dtype, "Q8_0");
}

TEST_CASE("conversion: what GGUF has no words for is refused before anything is written") {
    const larql::testing::temporary_folder folder;
    const auto refused = [&](const nlohmann::json& over) {
        larql::conversion(checkpoint::open(data + "/hf/deepseek_v3", {.config = over}), folder / "x.gguf", to_gguf)
            .run();
        return 0;
    };
    LARQL_CHECK_ERROR(refused({{"rope_interleave", false}}), errc::unsupported_architecture, "rope_interleave");
    LARQL_CHECK_ERROR(refused({{"hidden_act", "gelu"}}), errc::unsupported_architecture, "hidden_act");
    LARQL_CHECK_ERROR(refused({{"rope_scaling",
                                {{"type", "yarn"},
                                 {"factor", 4.0},
                                 {"original_max_position_embeddings", 64},
                                 {"mscale", 0.5},
                                 {"mscale_all_dim", 1.0}}}}),
                      errc::unsupported_architecture, "rope_scaling");
    LARQL_CHECK_ERROR(convert(data + "/hf/mistral_swa", folder / "x.gguf", to_gguf), errc::unsupported_architecture,
                      "mistral");
    CHECK(files_in(folder.path()).empty());
}

TEST_CASE("conversion: a GGUF header that says something else than the model is refused, whatever it is") {
    const larql::testing::temporary_folder folder;
    const checkpoint source = checkpoint::open(data + "/hf/llama3");
    const larql::detail::conversion_scope scope{.kind = container::gguf, .block_end = 2};
    larql::detail::conversion_plan plan = larql::detail::conversion_planner(source, scope).plan();
    for (larql::detail::conversion_row& row : larql::detail::gguf_rope_rows(source))
        plan.rows.push_back(std::move(row));
    const auto read_back = [&](const char* key, const auto& value) {
        larql::detail::gguf_metadata metadata = larql::detail::gguf_model_metadata(source, scope, plan.rows).make();
        if (key != nullptr) metadata.set(key, value);
        const auto layout = larql::detail::lay_out_gguf(plan.rows, metadata, "x.gguf", UINT64_MAX);
        larql::detail::require_reads_back(source, layout.files.front(), plan.rows);
        return 0;
    };
    CHECK(read_back(nullptr, 0U) == 0);
    LARQL_CHECK_ERROR(read_back("llama.rope.freq_base", 10000.0F), errc::unsupported_architecture, "rotary embedding");
    LARQL_CHECK_ERROR(read_back("llama.attention.layer_norm_rms_epsilon", 1e-5F), errc::unsupported_architecture,
                      "the eps of its norms");
    LARQL_CHECK_ERROR(read_back("llama.vocab_size", 47U), errc::unsupported_architecture, "vocabulary");
    LARQL_CHECK_ERROR(read_back("llama.block_count", 1U), errc::unsupported_architecture, "2 attention blocks");

    larql::attention_spec spec = source.spec(0), other = spec;
    CHECK(larql::detail::difference(spec, other).empty());
    other.scale *= 1.0 + 1e-5;
    CHECK(larql::detail::difference(spec, other) == "softmax scale");
    other = spec;
    other.sliding_window = 7;
    CHECK(larql::detail::difference(spec, other) == "window");
    other = spec;
    other.q_norm = {.kind = larql::norm_kind::rms, .eps = 1e-6};
    CHECK(larql::detail::difference(spec, other) == "norms");
    other = spec;
    other.geometry.v_head_dim += 1;
    CHECK(larql::detail::difference(spec, other) == "sizes");
}

#if !defined(_WIN32)
TEST_CASE("conversion: a replaced file keeps its permissions, and a stranger's temporary is not taken over") {
    const larql::testing::temporary_folder folder;
    const std::string source = data + "/hf/deepseek_v3";
    conversion_options options{.form = attention_form::latent};
    const fs::path out = folder / "out";
    fs::create_directory(out);
    // Anybody could write this one: it is made anew, and what it held is gone.
    larql::testing::write_file(out / "model.safetensors.larql-part", std::string(5'000'000, 'x'));
    fs::permissions(out / "model.safetensors.larql-part", static_cast<fs::perms>(0666));
    const std::ifstream held(out / "model.safetensors.larql-part");
    convert(source, out, options);
    convert(source, folder / "want", options);
    CHECK(files_in(out) == files_in(folder / "want"));
    CHECK((fs::status(out / "model.safetensors").permissions() & fs::perms::others_write) == fs::perms::none);
    CHECK(fs::status(out / "model.safetensors").permissions() ==
          fs::status(folder / "want" / "config.json").permissions());

    for (const char* name : {"model.safetensors", "config.json"})
        fs::permissions(out / name, static_cast<fs::perms>(0600));
    options.form = attention_form::dense;
    options.replace = true;
    options.shard_bytes = 100'000;  // other names: they take the permissions of the model
    convert(source, out, options);
    for (const auto& entry : fs::directory_iterator(out))
        CHECK(entry.status().permissions() == static_cast<fs::perms>(0600));
    CHECK(!fs::exists(out / "model.safetensors"));
}
#endif

TEST_CASE("conversion: the folder of a source whose shards lie elsewhere is never the target") {
    const larql::testing::temporary_folder folder;
    fs::create_directories(folder / "model" / "sub");
    fs::copy(data + "/hf/deepseek_v3/model.safetensors", folder / "model" / "sub" / "a.safetensors");
    fs::copy(data + "/hf/deepseek_v3/config.json", folder / "model" / "config.json");
    nlohmann::json map;
    for (const std::string& name : names_of(checkpoint::open(data + "/hf/deepseek_v3")))
        map[name] = "sub/a.safetensors";
    larql::testing::write_file(folder / "model" / "model.safetensors.index.json",
                               nlohmann::json{{"weight_map", map}}.dump());
    const auto before = files_in(folder / "model");
    for (const fs::path& out : {folder / "model", folder / "model" / "sub"})
        LARQL_CHECK_ERROR(convert(folder / "model" / "model.safetensors.index.json", out,
                                  {.form = attention_form::dense, .replace = true}),
                          errc::already_exists, "the folder of the input");
    CHECK(files_in(folder / "model") == before);
}

TEST_CASE("conversion: parts made in any order, one of them twice, join to what one run makes") {
    const larql::testing::temporary_folder folder;
    const std::string source = data + "/hf/deepseek_v3";
    conversion_options options{.form = attention_form::latent, .shard_bytes = 40'000};
    convert(source, folder / "one", options);
    options.parts = 3;
    options.join = true;
    LARQL_CHECK_ERROR(convert(source, folder / "many", options), errc::missing_shard, "part 1 of 3");
    options.join = false;
    for (const std::size_t part : {3, 1, 1}) {
        options.part = part;
        convert_together(source, folder / "many", options);
    }
    CHECK(!fs::exists(folder / "many" / "config.json"));
    options.join = true;
    options.part = 0;
    LARQL_CHECK_ERROR(convert(source, folder / "many", options), errc::missing_shard, "part 2 of 3");
    options.join = false;
    options.part = 2;
    convert(source, folder / "many", options);
    options.join = true;
    options.part = 0;
    conversion_options other = options;
    other.form = attention_form::dense;
    LARQL_CHECK_ERROR(convert(source, folder / "many", other), errc::missing_shard, "another command");
    options.parts = 0;  // those that are there
    convert(source, folder / "many", options);
    CHECK(files_in(folder / "many") == files_in(folder / "one"));
    CHECK(files_in(folder / "many").size() > 5);
    LARQL_CHECK_ERROR(convert(source, folder / "none", options), errc::missing_shard, "no part");
}

TEST_CASE("conversion: an interrupted run leaves nothing that looks whole, and a rerun makes the same bytes") {
    struct interrupted {};
    const larql::testing::temporary_folder folder;
    const std::string source = data + "/hf/deepseek_v3";
    conversion_options options{.form = attention_form::dense, .shard_bytes = 60'000};
    convert(source, folder / "whole", options);
    const auto whole = files_in(folder / "whole");
    for (const double share : {0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0}) {
        CAPTURE(share);
        options.progress = [&](std::uint64_t done, std::uint64_t total) {
            if (static_cast<double>(done) >= share * static_cast<double>(total)) throw interrupted{};
        };
        CHECK_THROWS_AS(convert(source, folder / "cut", options), interrupted);
        CHECK(!has_temporaries(folder / "cut"));
        CHECK(!fs::exists(folder / "cut" / "config.json"));
        options.progress = {};
        options.resume = !options.resume;
        convert_together(source, folder / "cut", options);
        CHECK(files_in(folder / "cut") == whole);
        fs::remove_all(folder / "cut");
    }
}

TEST_CASE("conversion: a resumed run makes what is missing, and refuses work that is not its own") {
    struct interrupted {};
    const larql::testing::temporary_folder folder;
    const std::string source = data + "/hf/deepseek_v3";
    conversion_options options{.form = attention_form::dense, .shard_bytes = 60'000, .sync_seconds = 0.0};
    convert(source, folder / "whole", options);
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
        if (done >= total / 2) throw interrupted{};
    };
    CHECK_THROWS_AS(convert(source, folder / "cut", options), interrupted);
    CHECK(has_temporaries(folder / "cut"));
    CHECK(!fs::exists(folder / "cut" / "config.json"));
    conversion_options other = options;
    other.form = attention_form::latent;
    other.resume = true;
    LARQL_CHECK_ERROR(convert(source, folder / "cut", other), errc::source_changed, "without --resume");
    options.resume = true;
    std::uint64_t first = 0;
    options.progress = [&](std::uint64_t done, std::uint64_t) { first = first == 0 ? done : first; };
    convert(source, folder / "cut", options);
    CHECK(first > 100'000);  // not from the beginning
    CHECK(files_in(folder / "cut") == files_in(folder / "whole"));
}

#if LARQL_FAILING_CALLS
TEST_CASE("conversion: whatever call fails, the old model is whole or the new one, and a plain rerun succeeds") {
    const std::string source = data + "/hf/axk1_b";
    const larql::testing::temporary_folder folder;
    conversion_options dense{.form = attention_form::dense, .shard_bytes = 20'000};
    conversion_options latent{.form = attention_form::latent, .shard_bytes = 10'000};
    convert(source, folder / "dense", dense);
    convert(source, folder / "latent", latent);
    const auto old_files = files_in(folder / "dense"), new_files = files_in(folder / "latent");
    struct fault {
        const char* call;
        int code;
    };
    constexpr fault faults[] = {{"open", EMFILE},
                                {"pread", EIO},
                                {"pread", larql::testing::comes_short},
                                {"pwrite", ENOSPC},
                                {"pwrite", larql::testing::comes_short},
                                {"ftruncate", EDQUOT},
                                {"fsync", EIO},
                                {"close", EIO},
                                {"rename", EIO}};
    int failures = 0;
    for (const bool fresh : {true, false})
        for (const fault& f : faults)
            for (int after = 0;; ++after) {
                CAPTURE(f.call);
                CAPTURE(f.code);
                CAPTURE(after);
                const fs::path out = folder / "out";
                fs::remove_all(out);
                if (!fresh) fs::copy(folder / "dense", out);
                conversion_options options = latent;
                options.replace = !fresh;
                bool failed = false, happened = false;
                {
                    const larql::testing::failing_call failing(f.call, f.code, after, 1);
                    try {
                        convert(source, out, options);
                    } catch (const larql::error&) {
                        failed = true;
                    }
                    happened = larql::testing::failing_call::happened();
                }
                const auto left = files_in(out);
                if (!failed) CHECK(left == new_files);
                if (!happened) break;  // so many calls are not made
                ++failures;
                CHECK((left == new_files || (fresh ? left.empty() : left == old_files)));
                if (left == new_files) continue;
                convert(source, out, options);
                CHECK(files_in(out) == new_files);
            }
    larql::testing::print_tried(
        "a call of a conversion that opens, reads, writes, resizes, syncs, closes or renames fails or comes short, "
        "every one, "
        "into an empty folder and in place of a model",
        std::to_string(failures) + " runs, and a rerun after each");
}
#endif

TEST_CASE("conversion: a run that died while names were changed is finished by the next one") {
    const std::string source = data + "/hf/deepseek_v3";
    const larql::testing::temporary_folder folder;
    const conversion_options options{.form = attention_form::latent, .shard_bytes = 100'000};
    convert(source, folder / "want", options);
    const auto want = files_in(folder / "want");
    // As a kill leaves it: complete temporaries, some of them renamed, and the journal.
    const checkpoint model = checkpoint::open(source);
    const conversion planned(model, folder / "out", options);
    for (std::size_t renamed = 0; renamed < want.size(); ++renamed) {
        CAPTURE(renamed);
        const fs::path out = folder / "out";
        fs::remove_all(out);
        fs::create_directory(out);
        std::string journal = "larql conversion journal 1\nplan x\nsource y\n";
        std::size_t number = 0;
        for (const larql::conversion::file& file : planned.files()) {
            journal += "file " + file.name + "\n";
            const std::string name = file.name + (number++ < renamed ? "" : ".larql-part");
            larql::testing::write_file(out / name, want.at(file.name));
            fs::permissions(out / name, fs::perms::owner_read | fs::perms::owner_write);
        }
        larql::testing::write_file(out / "larql-journal", journal + "commit\nro");
        fs::permissions(out / "larql-journal", fs::perms::owner_read | fs::perms::owner_write);
        // Another conversion than the one that died: its model is whole first, and then there.
        LARQL_CHECK_ERROR(convert(source, out, options), errc::already_exists, "already there");
        CHECK(files_in(out) == want);
    }
    // A journal that would lead out of the folder is none.
    const fs::path out = folder / "led";
    larql::testing::write_file(folder / "victim", "x");
    fs::create_directory(out);
    larql::testing::write_file(out / "larql-journal",
                               "larql conversion journal 1\nplan x\nsource y\nold ../victim\ncommit\n");
    fs::permissions(out / "larql-journal", fs::perms::owner_read | fs::perms::owner_write);
    convert(source, out, options);
    CHECK(read_all(folder / "victim") == "x");
    CHECK(files_in(out) == want);
}
