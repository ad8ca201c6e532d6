"""All config keys, with meaning, unit, and the values of the paper and of the released program.

The other files in this folder start from this one and change a few lines. To change a key on the command line:
`--config.optimizer.peak_lr=0.01`. The value `none` unsets an optional key.
"Released" is the authors' PyTorch program, "paper" the text of M2SNet (arXiv 2303.10894).
"""

from ml_collections import ConfigDict, config_dict


def get_config(variant: str | None = None, pretrained: bool = False) -> ConfigDict:
    """Returns the released recipe, or a variant of it.

    Args:
        variant: 'paper' follows the text of the paper where it differs from the released program. 'small' trains in 15
            to 20 min on two CPU cores: 128 pixels, batch 8, no LossNet, random initial weights. Its scores are not
            comparable with published ones.
        pretrained: start encoder and LossNet from ImageNet weights, except in 'small'. They are downloaded once (see
            m2snet_jax/weights/pretrained.py).

    Raises:
        ValueError: an unknown variant.
    """
    if variant not in (None, 'paper', 'small'):
        raise ValueError(f'no variant {variant!r}: there are "paper" and "small"')
    config = ConfigDict()

    config.seed = 0  # of initial weights, order, augmentation and sizes; not of the test set (see data.seed)
    config.batch = 16  # images per step over all devices and hosts; paper and released: 16
    config.epochs = 50  # passes over the training images; paper and released: 50 for polyps
    config.steps = config_dict.placeholder(int)  # training steps; overrides epochs when set
    config.dtype = 'float32'  # convolutions in 'float32' or 'bfloat16' (released: float16 autocast)
    config.remat = False  # compute the encoder's stages again for the gradient instead of keeping them: less memory
    config.gradient_accumulation = 1  # parts of a batch, one after the other, to save memory; batch norm sees one part
    config.ema = config_dict.placeholder(float)  # decay of averaged weights, which are evaluated; unset: no average
    config.precise_batch_norm = 0  # batches over which running statistics are measured after training; released: none

    # Which step is scored and loaded: 'last' (paper and released), or the end of the epoch with the highest Dice on the
    # 'validation' split or on the 'test' sets. With 'test' the scores are too high; the score sheets contain a warning.
    config.select = 'last'
    config.select_on_test = False  # must be set for select='test'

    config.model = ConfigDict()
    config.model.name = 'm2snet'  # 'm2snet' or 'msnet'
    config.model.encoder = 'res2net50'  # a name of docs/models.md; 'res2net14' is for tests and the quickstart

    # Switches of the network. Column n of the pyramid has the units with n levels in their name. The enhancement of a
    # level sums its units of columns 2 to `columns`; with 1, where there are no units, it takes the level itself.
    config.model.columns = 5  # paper and released: 5
    # Odd sizes of the full-one filters that all units share; on the command line '()', '(3,)' or '(3, 5, 7)'. Unset, as
    # in the papers and released: those of `model.name`, none for msnet, 3 and 5 for m2snet.
    config.model.filters = config_dict.placeholder(tuple)
    # What a unit convolves, of its two maps A and B, summed over the filters f. 'subtract', paper and released:
    # |A − B| + Σ|f(A) − f(B)|. 'add': A + B + Σ(f(A) + f(B)). 'concatenate': all of A, B, f(A), f(B) side by side.
    config.model.operation = 'subtract'
    config.model.add_level = False  # the enhancement also adds the level itself; released: no, the paper's figure: yes
    config.model.drop_path = 0.0  # highest share of residual branches left out in training; 0 for encoders without it

    # Share of training after which the filters' batch norms, which all units share, keep their running statistics. 1:
    # never, as released. In training each call uses the statistics of its own input, in evaluation all use the same.
    config.model.freeze_shared_norms_after = 1.0
    config.model.encoder_weights = config_dict.placeholder(str)  # start of the encoder: name, .pth or .safetensors file
    config.model.weights = config_dict.placeholder(str)  # start of the whole model: a run's folder or a file
    # Name of averaged weights in a file, e.g. 'ema' or 'state_dict_ema', to take in place of the ordinary ones.
    config.model.weights_average = config_dict.placeholder(str)

    config.loss = ConfigDict()
    config.loss.bce = 'mean'  # 'mean' is released (a legacy argument cancels the weights); 'weighted' is the paper's
    config.loss.lossnet = 0.1  # weight of LossNet, 0 switches it off; released: 0.1
    config.loss.lossnet_weights = config_dict.placeholder(str)  # 'vgg16' or a file; unset: random, not the papers'
    config.loss.lossnet_size = 224  # side in pixels at which LossNet compares map and mask; released: 224

    config.optimizer = ConfigDict()
    config.optimizer.name = 'sgd'  # 'sgd', paper and released, or 'adamw', for which peak_lr is about 1e-4
    config.optimizer.schedule = 'triangular'  # by epochs, paper and released; or 'cosine', to 0 at the last step
    config.optimizer.warmup = 0.0  # epochs in which the learning rate rises linearly, before 'cosine'; released: none
    config.optimizer.clip = config_dict.placeholder(float)  # limits each element of the gradient to ± clip; unset: no
    config.optimizer.peak_lr = 0.05  # highest learning rate; paper and released: 0.05, in the middle of training
    config.optimizer.encoder_lr_factor = 1.0  # the encoder's learning rate ÷ the others'; released: 1.0, paper: 0.1
    config.optimizer.freeze_stem = False  # do not train the stem (conv1, bn1), as the released filter was meant to
    config.optimizer.momentum = 0.9  # Nesterov momentum of SGD, β₁ of AdamW; paper and released: 0.9
    # Of all parameters, batch norm and biases too: times the parameter, in the gradient of SGD and the update of AdamW.
    config.optimizer.weight_decay = 5e-4  # released: 5e-4
    config.optimizer.scale_lr_with_batch = False  # learning rates × batch / 16; paper and released: no

    config.data = ConfigDict()
    config.data.name = 'polyp'  # a file of m2snet_jax/data/datasets
    config.data.root = config_dict.placeholder(str)  # folder that holds the dataset; unset: the published download
    # Folders of images and masks below root, or patterns in which `*` is the name, `**` any folders: 'a/*_scan.tif'.
    config.data.images = config_dict.placeholder(str)  # folder; unset: images/
    config.data.masks = config_dict.placeholder(str)  # folder; unset: masks/. What both match is a mask
    # 'released': training images by other means and deviations (m2snet_jax/data/augment.py) than test images, which use
    # ImageNet's. 'imagenet': both use ImageNet's, as in the training of ImageNet weights. The paper does not say.
    config.data.normalisation = 'released'
    config.data.size = 352  # side in pixels of training images before sizes, and of every test image; released: 352
    config.data.sizes = (224, 256, 288, 320, 352)  # sides in pixels, one drawn for each batch; released: these
    config.data.classes = 1  # foreground classes: 1 is binary; more: masks hold class indices, 0 is background
    # Colours of masks, background first and then the classes, as red, green and blue in hexadecimal digits, e.g.
    # ('000000', 'ff0000'); the grey level 80 is '505050'. Unset: levels 0/255 or 0/1, or class indices.
    config.data.colors = config_dict.placeholder(tuple)
    config.data.seed = 0  # of generated images and of splits; `seed` does not change the test set
    config.data.folds = 4  # number of folds, used if data.fold is set; the paper's BUSI: k-fold
    config.data.fold = config_dict.placeholder(int)  # fold for the test, the others for training; busi, goals, folder
    config.data.folds_file = config_dict.placeholder(str)  # table name,fold; unset: folds.csv beside the data, or drawn
    config.data.group_duplicates = False  # near-duplicates are in the same fold; busi, goals, folder
    config.data.exclude = config_dict.placeholder(str)  # file of names, one a line, to leave out of training only
    # The range from black to white of images with more than 8 bits; DICOM and NIfTI need it. In a CT's Hounsfield
    # units: 'lung' (centre -600, width 1500), 'mediastinum' (50, 350), 'abdomen' (50, 400), 'liver' (30, 150),
    # 'bone' (400, 1800), 'brain' (40, 80). In any units: 'CENTRE,WIDTH'. 'file': each file's own.
    config.data.window = config_dict.placeholder(str)
    config.data.validation = config_dict.placeholder(float)  # held out of training: a share below 1, or a number
    config.data.count = 200  # phantoms: images generated for training
    config.data.test_count = 50  # phantoms: images generated for the test
    config.data.cache = True  # keep decoded images in memory
    config.data.threads = 2  # threads that augment images

    config.log = ConfigDict()
    config.log.every = 20  # steps between two lines of the log
    config.log.images = 4  # images whose maps are shown: ten times in training, and of each test set at the end
    config.log.tensorboard = True  # also write TensorBoard event files
    config.log.wandb = False  # also log to Weights & Biases, which sends data out unless WANDB_MODE=offline
    config.log.profile = config_dict.placeholder(str)  # steps to trace for TensorBoard and Perfetto, as "101:103"

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 200  # steps between two checkpoints; the last step is always saved
    config.checkpoint.keep = 2  # newest checkpoints kept

    config.evaluate = ConfigDict()
    config.evaluate.batch = 8  # test images per prediction step
    config.evaluate.bootstrap = 2000  # resamples for the 95 % interval of a score; 0: no intervals

    if variant == 'paper':
        config.loss.bce = 'weighted'
        config.optimizer.encoder_lr_factor = 0.1
    if variant == 'small':
        config.data.size = 128
        config.data.sizes = (96, 112, 128)
        config.batch = 8
        config.loss.lossnet = 0.0
    elif pretrained:
        config.model.encoder_weights = 'res2net50'
        config.loss.lossnet_weights = 'vgg16'
    return config
