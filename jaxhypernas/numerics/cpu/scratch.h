// Memory for intermediate results.
#pragma once

#include <cstddef>
#include <vector>

namespace jaxhypernas {

// The uses of scratch memory. Two arrays that are in use at the same time have
// different slots, or different indices of one slot.
enum Slot {
  // An image with its border, and the output of its depthwise convolution.
  kImage,
  kDeep,
  // Kernels, as they are and flipped, and depthwise kernels.
  kKernel,
  kFlipped,
  kTaps,
  // Gradients with respect to outputs, images and depthwise kernels.
  kGradient,
  kGradientImage,
  kDeepGradient,
  kTapsGradient,
  kWide,
  // Tiles of Winograd's convolution.
  kTileInputs,
  kTileProducts,
  // Outputs of an op's layers and BatchNorm's statistics; indexed by the layer.
  kOutput,
  kMean,
  kScale,
  // The gradient from a layer to the layer before; layers take turns with two.
  kBetween,
  // Rows and images of pooling.
  kRow,
  kPooled,
  // The sum of states that a node reads; gradients of all states and of that
  // sum.
  kRead,
  kStatesGradient,
  kReadGradient,
  kSlots,
};

// Memory of this thread, at least `size` values, that lives on from call to
// call. It holds values of earlier uses. A slot has any number of arrays,
// numbered by `index`.
template <class T>
T* scratch(Slot slot, size_t size, size_t index = 0) {
  static thread_local std::vector<std::vector<T>> slots[kSlots];
  std::vector<std::vector<T>>& arrays = slots[slot];
  // Moving the vectors leaves their values where they are.
  if (arrays.size() <= index) arrays.resize(index + 1);
  if (arrays[index].size() < size) arrays[index].resize(size);
  return arrays[index].data();
}

}  // namespace jaxhypernas
