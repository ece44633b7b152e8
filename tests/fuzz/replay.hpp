// SPDX-License-Identifier: Apache-2.0
//
// A main that feeds inputs to a fuzz target, for compilers without libFuzzer and for replaying findings:
//
//   program [--random N] [FILE or FOLDER ...]
//
// N inputs of pseudo-random bytes, the same in every run, then the files. With LARQL_LIBFUZZER defined, libFuzzer
// brings its own main.
#ifndef LARQL_TESTS_FUZZ_REPLAY_HPP
#define LARQL_TESTS_FUZZ_REPLAY_HPP

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

#if !defined(LARQL_LIBFUZZER)

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string_view>
#include <vector>

namespace larql::testing {

inline void replay_random(unsigned long count) {
    std::mt19937 random(1);
    for (unsigned long i = 0; i < count; ++i) {
        std::vector<std::uint8_t> bytes(random() % 257);
        for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
}

inline void replay_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        std::fprintf(stderr, "cannot read %s\n", path.string().c_str());
        std::exit(1);
    }
    const std::vector<char> bytes(std::istreambuf_iterator<char>(in), {});
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

inline void replay(const std::filesystem::path& path) {
    if (!std::filesystem::is_directory(path)) return replay_file(path);
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(path)) files.push_back(entry.path());
    std::ranges::sort(files);
    for (const std::filesystem::path& file : files) replay_file(file);
}

}  // namespace larql::testing

int main(int count, char** arguments) {
    for (int i = 1; i < count; ++i) {
        if (std::string_view(arguments[i]) == "--random" && i + 1 < count)
            larql::testing::replay_random(std::strtoul(arguments[++i], nullptr, 10));
        else
            larql::testing::replay(arguments[i]);
    }
    return 0;
}

#endif

#endif
