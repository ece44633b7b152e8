// SPDX-License-Identifier: Apache-2.0
//
// A main that feeds files to a fuzz target, for compilers without libFuzzer and for replaying findings:
// program FILE...  (with LARQL_LIBFUZZER defined, libFuzzer brings its own main).
#ifndef LARQL_TESTS_FUZZ_REPLAY_HPP
#define LARQL_TESTS_FUZZ_REPLAY_HPP

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

#if !defined(LARQL_LIBFUZZER)
int main(int count, char** arguments) {
    for (int i = 1; i < count; ++i) {
        std::ifstream in(arguments[i], std::ios::binary);
        if (!in) return std::fprintf(stderr, "cannot read %s\n", arguments[i]), 1;
        const std::vector<char> bytes(std::istreambuf_iterator<char>(in), {});
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    }
    return 0;
}
#endif

#endif
