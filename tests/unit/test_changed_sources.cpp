// SPDX-License-Identifier: Apache-2.0
//
// Sources that are cut or replaced before any of the calls with which they are opened, read and converted: an error, or
// what the source held; never a signal, and nothing that looks like a model.
#include <larql/checkpoint.hpp>
#include <larql/convert.hpp>

#include <support/failing_calls.hpp>
#include <support/files.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#if LARQL_FAILING_CALLS

namespace {

namespace fs = std::filesystem;
using larql::checkpoint;
using larql::testing::before_call;
using larql::testing::read_file;
using larql::testing::temporary_folder;
using larql::testing::write_file;

const fs::path data = LARQL_TEST_DATA;

struct source {
    fs::path model;               // in data: a file or a folder
    std::vector<fs::path> files;  // in the copy: those that are changed
};
const source sources[] = {
    {"gguf/deepseek_v32_bias-bf16.gguf", {"m.gguf"}},
    {"hf/deepseek_v3_sharded",
     {"m/config.json", "m/model.safetensors.index.json", "m/model-00002-of-00003.safetensors"}},
};

fs::path copy_of(const source& from, const temporary_folder& to) {
    const fs::path path = to / (fs::is_directory(data / from.model) ? "m" : "m.gguf");
    fs::remove_all(path);
    fs::copy(data / from.model, path, fs::copy_options::recursive);
    return path;
}

/// Ways in which a file changes under its reader.
struct change {
    const char* name;
    void (*make)(const fs::path&);
};
const change changes[] = {
    {"emptied", [](const fs::path& path) { fs::resize_file(path, 0); }},
    {"halved", [](const fs::path& path) { fs::resize_file(path, fs::file_size(path) / 2); }},
    {"replaced",
     [](const fs::path& path) {
         write_file(path.string() + ".new", std::string(fs::file_size(path), '{'));
         fs::rename(path.string() + ".new", path);
     }},
    {"removed", [](const fs::path& path) { fs::remove(path); }},
};

/// All that a checkpoint says and holds, as one text.
std::string content_of(const fs::path& path) {
    const checkpoint model = checkpoint::open(path);
    std::string text = std::to_string(model.config().hidden_size);
    for (const larql::tensor_info& info : model.tensors()) text += std::string(info.name) + std::to_string(info.offset);
    const auto add = [&](const auto& numbers) {
        text.append(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float));
    };
    for (const std::string& name : model.weights().names()) {
        const larql::weight weight = model.weights().at(name);
        std::vector<float> values(weight.rows() * weight.columns());
        weight.read_rows(0, weight.rows(), values.data(), weight.columns());
        add(values);
    }
    for (const auto storage : {larql::weight_storage::copied, larql::weight_storage::from_file}) {
        const auto layer = model.attention(0, model.config().form, {.storage = storage});
        add(layer.forward(larql::tensor<float, 2>(xt::ones<float>({std::size_t{2}, model.config().hidden_size}))).out);
    }
    return text;
}

std::string converted(const fs::path& path, const fs::path& out) {
    fs::remove_all(out);
    larql::conversion(checkpoint::open(path), out, {.form = larql::attention_form::factored}).run();
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(out))
        files[entry.path().filename().string()] = read_file(entry.path());
    std::string text;
    for (const auto& [name, content] : files) text += name + content;
    return text;
}

struct outcome {
    int same = 0, refused = 0, changed = 0;
};

/// Does `work` with every change before every so-many-th call.
outcome change_at_every_call(const source& from, int step, const std::function<std::string(const fs::path&)>& work,
                             const std::function<void()>& check_refused) {
    const temporary_folder folder;
    const std::string clean = work(copy_of(from, folder));
    outcome seen;
    int first = 0;  // every call comes before some of the changes
    for (const fs::path& file : from.files)
        for (const change& how : changes)
            for (int number = first++ % step;; number += step) {
                const fs::path path = copy_of(from, folder);
                std::string result, problem;
                bool happened = false;
                {
                    const before_call changing(number, [&] { how.make(folder / file); });
                    problem = larql::testing::error_of([&] { return result = work(path); });
                    happened = before_call::happened();
                }
                if (!happened) break;
                CAPTURE(file);
                CAPTURE(how.name);
                CAPTURE(number);
                if (problem == "no error") {
                    CHECK(result == clean);
                    ++seen.same;
                } else {
                    CHECK_MESSAGE(problem.find('\n') == problem.npos, problem);
                    check_refused();
                    ++seen.refused;
                    for (const larql::errc code : {larql::errc::source_changed, larql::errc::truncated})
                        if (problem.starts_with(std::string(to_string(code)))) ++seen.changed;
                }
            }
    return seen;
}

}  // namespace

TEST_CASE("changed sources: what is opened and read is what was there, or an error") {
    int tried = 0;
    for (const source& from : sources) {
        CAPTURE(from.model);
        const outcome seen = change_at_every_call(from, 2, content_of, [] {});
        CHECK(seen.changed > 20);
        tried += seen.same + seen.refused;
    }
    larql::testing::print_tried(
        "a file is emptied, halved, replaced or removed before a call with which a checkpoint is opened and read",
        std::to_string(tried) + " runs");
}

TEST_CASE("changed sources: a conversion is of what was there, or leaves nothing") {
    int tried = 0;
    const temporary_folder folder;
    const fs::path out = folder / "out";
    for (const source& from : sources) {
        CAPTURE(from.model);
        const outcome seen = change_at_every_call(
            from, 3, [&](const fs::path& path) { return converted(path, out); }, [&] { CHECK(!fs::exists(out)); });
        CHECK(seen.changed > 10);
        tried += seen.same + seen.refused;
    }
    larql::testing::print_tried("the same before a call of a conversion", std::to_string(tried) + " runs");
}

TEST_CASE("changed sources: nothing but layers in the map of their file maps a file") {
    for (const source& from : sources) {
        const temporary_folder folder;
        const fs::path path = copy_of(from, folder);
        bool mapped = false;
        const auto look = [&](std::uint64_t, std::uint64_t) {
            std::ifstream maps("/proc/self/maps");
            for (std::string line; std::getline(maps, line);)
                mapped = mapped || line.find(folder.path().string()) != line.npos;
        };
        (void)content_of(path);
        larql::conversion(checkpoint::open(path), folder / "out",
                          {.form = larql::attention_form::latent, .progress = look})
            .run();
        look(0, 0);
        CHECK(!mapped);
    }
}

#endif
