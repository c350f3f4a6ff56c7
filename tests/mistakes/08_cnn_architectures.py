# %% conv_parameters: a kernel sees channels / groups maps
def conv_parameters(size, channels, filters, groups=1, bias=True):
    return (size * size * channels + bias) * filters


# %% conv_parameters: the kernels, and a bias for each, stay as many
def conv_parameters(size, channels, filters, groups=1, bias=True):
    return (size * size * channels + bias) * filters // groups


# %% conv_parameters: without bias, nothing is added
def conv_parameters(size, channels, filters, groups=1, bias=True):
    return (size * size * channels // groups + 1) * filters


# %% conv_parameters: size · size weights for each map below, and one bias
def conv_parameters(size, channels, filters, groups=1, bias=True):
    return size * size * channels // groups * filters + bias


# %% conv_parameters: depthwise: as many groups as maps
def conv_parameters(size, channels, filters, groups=1, bias=True):
    each = channels // groups if groups < channels else channels
    return (size * size * each + bias) * filters


# %% receptive_field: each layer adds its kernel size minus 1
def receptive_field(stack):
    return sum(size for size, _ in stack)


# %% receptive_field: neighbours in the map are two pixels of the image apart
def receptive_field(stack):
    return 1 + sum(size - 1 for size, _ in stack)


# %% receptive_field: the stride of a layer widens what the layers *after* it see
def receptive_field(stack):
    field, step = 1, 1
    for size, stride in stack:
        step *= stride
        field += (size - 1) * step
    return field


# %% receptive_field: 4 and 2 make 8
def receptive_field(stack):
    field, step = 1, 1
    for size, stride in stack:
        field += (size - 1) * step
        if stride > 1:
            step *= 2
    return field


# %% receptive_field: a kernel of 2 × 2
def receptive_field(stack):
    field, step = 1, 1
    for size, stride in stack:
        field += 2 * (size // 2) * step
        step *= stride
    return field


# %% receptive_field: strides multiply
def receptive_field(stack):
    field, step = 1, 1
    for size, stride in stack:
        field += (size - 1) * step
        step += stride - 1
    return field


# %% bottleneck: the last 1 × 1 makes 4 · filters
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = convolved(change, filters, 1)
    return layers.ReLU()(layers.Add()([convolved(x, filters, 1, stride), change]))


# %% bottleneck: three convolutions without bias
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same")(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = convolved(change, 4 * filters, 1)
    if x.shape != change.shape:
        x = convolved(x, 4 * filters, 1, stride)
    return layers.ReLU()(layers.Add()([x, change]))


# %% bottleneck: the shortcut is a 1 × 1 convolution with batch normalisation
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = convolved(change, 4 * filters, 1)
    if x.shape != change.shape:
        x = layers.Conv2D(4 * filters, 1, stride, use_bias=False)(x)
    return layers.ReLU()(layers.Add()([x, change]))


# %% bottleneck: add the input, then ReLU
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = layers.ReLU()(convolved(change, 4 * filters, 1))
    if x.shape != change.shape:
        x = convolved(x, 4 * filters, 1, stride)
    return layers.Add()([x, change])


# %% bottleneck: ReLU follows the first and the second normalisation
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = convolved(x, filters, 1)
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = convolved(change, 4 * filters, 1)
    if x.shape != change.shape:
        x = convolved(x, 4 * filters, 1, stride)
    return layers.ReLU()(layers.Add()([x, change]))


# %% bottleneck: ReLU follows the first and the second normalisation
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = convolved(change, filters, 3, stride)
    change = convolved(change, 4 * filters, 1)
    if x.shape != change.shape:
        x = convolved(x, 4 * filters, 1, stride)
    return layers.ReLU()(layers.Add()([x, change]))


# %% bottleneck: the 3 × 3 has the stride
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1, stride))
    change = layers.ReLU()(convolved(change, filters, 3))
    change = convolved(change, 4 * filters, 1)
    if x.shape != change.shape:
        x = convolved(x, 4 * filters, 1, stride)
    return layers.ReLU()(layers.Add()([x, change]))


# %% bottleneck: your code raises ValueError
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = convolved(change, 4 * filters, 1)
    if stride > 1:
        x = convolved(x, 4 * filters, 1, stride)
    return layers.ReLU()(layers.Add()([x, change]))


# %% bottleneck: none behind the third
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = layers.ReLU()(convolved(change, 4 * filters, 1))
    if x.shape != change.shape:
        x = convolved(x, 4 * filters, 1, stride)
    return layers.ReLU()(layers.Add()([x, change]))


# %% bottleneck: ReLU stands behind a normalisation
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1, activation="relu"):
        x = layers.Conv2D(filters, size, stride, "same", use_bias=False, activation=activation)(x)
        return layers.BatchNormalization()(x)

    change = convolved(convolved(x, filters, 1), filters, 3, stride)
    change = convolved(change, 4 * filters, 1, activation=None)
    if x.shape != change.shape:
        x = convolved(x, 4 * filters, 1, stride, activation=None)
    return layers.ReLU()(layers.Add()([x, change]))


# %% bottleneck: no ReLU on the shortcut
def bottleneck(x, filters, stride=1):
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = convolved(change, 4 * filters, 1)
    if x.shape != change.shape:
        x = layers.ReLU()(convolved(x, 4 * filters, 1, stride))
    return layers.ReLU()(layers.Add()([x, change]))
