// SPDX-License-Identifier: Apache-2.0
//
// Arguments of the programs, run in this process on tiny checkpoints: a program ends with 0, 1 or 2, says why in one
// line if it is not 0, prints nothing that a terminal obeys, and leaves its input as it was.
#include <larql/printable.hpp>
#include <support/files.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"
#include "replay.hpp"
#include "stored_tensors.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

// The mains of examples/, compiled under these names.
int larql_inspect_main(int, char**);
int larql_attend_main(int, char**);
int larql_absorb_main(int, char**);
int larql_verify_main(int, char**);

namespace {

using namespace larql::testing;

struct program {
    std::string name;
    int (*main)(int, char**);
    std::vector<const char*> options;
};

const std::vector<program>& programs() {
    static const std::vector<program> all = {
        {"larql-inspect", larql_inspect_main, {"--json", "--tensors", "--plan", "--dump", "--names"}},
        {"larql-attend", larql_attend_main, {"--layer", "--hidden", "--out", "--selection", "--form", "--threads"}},
        {"larql-absorb",
         larql_absorb_main,
         {"--form", "--to", "--dialect", "--dtype", "--attn-dtype", "--shard-size", "--layers", "--part", "--join",
          "--threads", "--dry-run", "--resume", "--force", "--quiet"}},
        {"larql-verify",
         larql_verify_main,
         {"--layers", "--tolerance", "--part", "--threads", "--checksums", "--json", "--config-b"}}};
    return all;
}

constexpr const char* paths[] = {"hf",
                                 "m.gguf",
                                 "hidden.safetensors",
                                 "out",
                                 "out.safetensors",
                                 "out.gguf",
                                 "hf/model.safetensors",
                                 "hf/config.json",
                                 "missing",
                                 "plain.txt",
                                 "hf/../hf",
                                 ""};
constexpr const char* values[] = {"0",
                                  "1",
                                  "2",
                                  "dense",
                                  "latent",
                                  "factored",
                                  "safetensors",
                                  "gguf",
                                  "vindex",
                                  "k_b+v_b",
                                  "kv_b",
                                  "source",
                                  "f32",
                                  "bf16",
                                  "q8_0",
                                  "q4_K",
                                  "1K",
                                  "100K",
                                  "5G",
                                  "0:1",
                                  "1:",
                                  ":1",
                                  "5:2",
                                  "1/1",
                                  "2/2",
                                  "0/0",
                                  "1/1000000",
                                  "-1",
                                  "1e-4",
                                  "nan",
                                  "inf",
                                  "1e400",
                                  "99999999999999999999",
                                  "refuse",
                                  "ignore",
                                  "4096",
                                  "model.layers.0.self_attn.o_proj.weight",
                                  "a,b",
                                  "\x1b[31m",
                                  "\n",
                                  "--",
                                  "--help",
                                  "--config",
                                  "hf/config.json",
                                  "--unknown",
                                  "4294967296",
                                  "4294967297",
                                  "0x10",
                                  "1.5",
                                  " 1",
                                  "hidden.safetensors",
                                  "out.safetensors"};

/// The checkpoints that the programs read, in a folder in which they are run.
class work_place {
public:
    work_place() {
        const std::filesystem::path data = LARQL_TEST_DATA;
        const auto copy = [&](const char* from, const char* to) {
            std::filesystem::copy(data / from, m_folder / to, std::filesystem::copy_options::recursive);
        };
        copy("hf/deepseek_v3_bias", "hf");
        copy("gguf/deepseek_v32_bias-bf16.gguf", "m.gguf");
        write_file(m_folder / "plain.txt", "text");
        write_file(m_folder / "hidden.safetensors", hidden_states(data / "hf/deepseek_v3_bias/reference.safetensors"));
        std::filesystem::current_path(m_folder.path());
        for (const char* name : inputs) m_before.push_back(read_file(m_folder / name));
    }
    ~work_place() { std::filesystem::current_path("/"); }
    work_place(const work_place&) = delete;
    work_place& operator=(const work_place&) = delete;

    /// The model that a program was told to read; another's files it may have been told to replace.
    void require_unchanged(const std::string& model) const {
        for (std::size_t i = 0; i < m_before.size(); ++i)
            require(!std::string_view(inputs[i]).starts_with(model) || is_unchanged(i),
                    std::string("a program changed its input ") + inputs[i]);
    }

    /// Everything as it was at first.
    void restore() const {
        for (const auto& entry : std::filesystem::directory_iterator(m_folder.path())) {
            const std::string name = entry.path().filename().string();
            if (std::ranges::none_of(inputs, [&](std::string_view input) { return input.starts_with(name); }))
                std::filesystem::remove_all(entry.path());
        }
        for (std::size_t i = 0; i < m_before.size(); ++i) {
            if (is_unchanged(i)) continue;
            const auto path = m_folder / inputs[i];
            std::filesystem::remove_all(path);
            std::filesystem::create_directories(path.parent_path());
            write_file(path, m_before[i]);
        }
    }

private:
    static constexpr const char* inputs[] = {"hf/config.json", "hf/model.safetensors", "m.gguf", "hidden.safetensors",
                                             "plain.txt"};

    /// The input of the first block, under the name by which larql-attend looks for it.
    static std::string hidden_states(const std::filesystem::path& reference) {
        std::vector<stored_tensor> tensors = read_tensors(reference);
        std::erase_if(tensors, [](const stored_tensor& t) { return t.name != "layer0.hidden"; });
        tensors.at(0).name = "hidden";
        return safetensors_of(tensors);
    }

    [[nodiscard]] bool is_unchanged(std::size_t i) const {
        const auto path = m_folder / inputs[i];
        return std::filesystem::is_regular_file(path) && read_file(path) == m_before[i];
    }

    temporary_folder m_folder;
    std::vector<std::string> m_before;
};

/// What a stream is given while this lives.
class captured {
public:
    explicit captured(std::ostream& stream) : m_stream(stream), m_before(stream.rdbuf(m_text.rdbuf())) {}
    ~captured() { m_stream.rdbuf(m_before); }
    captured(const captured&) = delete;
    captured& operator=(const captured&) = delete;
    [[nodiscard]] std::string text() const { return m_text.str(); }

private:
    std::ostringstream m_text;
    std::ostream& m_stream;
    std::streambuf* m_before;
};

std::string argument(byte_source& from, const program& run) {
    switch (from.number(0, 5)) {
        case 0: return from.pick(run.options);
        case 1: return from.pick(values);
        case 2: return from.pick(paths);
        case 3: return std::string(from.pick(run.options)) + '=' + from.pick(values);
        case 4: return std::string(from.pick(run.options));
        default: {  // any bytes, but no path out of the folder and no end of the argument
            std::string text = from.text(24);
            for (char& c : text)
                if (c == '/' || c == '\0') c = '_';
            return text;
        }
    }
}

/// Whether a program would be told to start so many threads that a test should not.
bool starts_many_threads(const std::vector<std::string>& arguments) {
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        std::string number;
        if (arguments[i] == "--threads" && i + 1 < arguments.size()) number = arguments[i + 1];
        if (arguments[i].starts_with("--threads=")) number = arguments[i].substr(10);
        if (number.size() > 1) return true;
    }
    return false;
}

/// Every line ends, and between the ends there is nothing that a terminal obeys.
void require_lines(const std::string& text, const char* what) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
        require(larql::printable(line) == line, std::string(what) + " has characters that a terminal obeys");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const work_place place;
    byte_source from(data, size);
    const program& run = from.pick(programs());
    std::vector<std::string> arguments{run.name};
    if (!from.one_in(4)) {  // what the program cannot do without
        arguments.emplace_back(from.one_in(3) ? "m.gguf" : "hf");
        if (run.name == "larql-absorb") arguments.emplace_back(from.one_in(2) ? "out.gguf" : "out");
        if (run.name == "larql-verify") arguments.emplace_back("hf");
        if (run.name == "larql-attend")
            arguments.insert(arguments.end(), {"--layer", "0", "--hidden", "hidden.safetensors", "--out", "o"});
    }
    for (std::size_t n = from.size(0, 8); n != 0; --n) arguments.push_back(argument(from, run));
    if (starts_many_threads(arguments)) return 0;
    const std::string model = arguments.size() > 1 ? arguments[1] : "";
    std::vector<char*> pointers;
    for (std::string& text : arguments) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    int code = 0;
    std::string out, problems;
    {
        const captured standard(std::cout), errors(std::cerr);
        code = run.main(static_cast<int>(arguments.size()), pointers.data());
        out = standard.text();
        problems = errors.text();
    }
    require(code >= 0 && code <= 2, run.name + " ends with " + std::to_string(code));
    require_lines(out, "standard output");
    require_lines(problems, "standard error");
    if (code != 0)
        require(problems.ends_with('\n') && problems.find("larql-") != std::string::npos, "no reason is given");
    if (model == "hf" || model == "m.gguf") place.require_unchanged(model);
    place.restore();
    return 0;
}
