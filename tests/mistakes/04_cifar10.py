# %% output_size: round up, also for same
def output_size(size, kernel_size, stride, padding):
    span = size if padding == "same" else size - kernel_size + 1
    return span // stride


# %% output_size: the kernel must fit inside
def output_size(size, kernel_size, stride, padding):
    return -(-size // stride)


# %% output_size: "same" with stride 1 keeps the size
def output_size(size, kernel_size, stride, padding):
    return -(-(size - kernel_size + 1) // stride)


# %% convolve: this kernel picks the upper right pixel
def convolve(image, kernel):
    k = len(kernel)
    shape = image.shape[0] - k + 1, image.shape[1] - k + 1
    output = np.zeros(shape)
    for row, column in np.ndindex(*shape):
        output[row, column] = (image[row : row + k, column : column + k] * kernel[::-1, ::-1]).sum()
    return output


# %% convolve: the output has I − K + 1 rows
def convolve(image, kernel):
    k = len(kernel)
    shape = image.shape[0] - k, image.shape[1] - k
    output = np.zeros(shape)
    for row, column in np.ndindex(*shape):
        output[row, column] = (image[row : row + k, column : column + k] * kernel).sum()
    return output


# %% convolve: sum over the whole patch
def convolve(image, kernel):
    k = len(kernel)
    shape = image.shape[0] - k + 1, image.shape[1] - k + 1
    output = np.zeros(shape)
    for row, column in np.ndindex(*shape):
        patch = image[row : row + k, column : column + k]
        output[row, column] = (patch * kernel).sum() / np.abs(kernel).sum()
    return output


# %% cross_entropy: natural log
def cross_entropy(z, label):
    z = z - z.max()
    return (np.log(np.exp(z).sum()) - z[label]) / np.log(10)


# %% cross_entropy: subtract the largest z before exp
def cross_entropy(z, label):
    with np.errstate(all="ignore"):
        return -np.log(np.exp(z[label]) / np.exp(z).sum())


# %% cross_entropy: minus the log of the true class's softmax
def cross_entropy(z, label):
    z = z - z.max()
    return np.log(np.exp(z).sum()) + z[label]
