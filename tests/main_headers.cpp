// SPDX-License-Identifier: Apache-2.0
// Linked with one source per header: a function that is not inline would be defined twice.
int main() { return 0; }
